"""Results compared with the truth: masks, counts and viabilities of emulated and annotated plates."""
