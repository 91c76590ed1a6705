"""inference.viability."""
