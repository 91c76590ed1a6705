"""inference.annotations."""
