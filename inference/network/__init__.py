"""inference.network."""
