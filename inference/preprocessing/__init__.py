"""inference.preprocessing."""
