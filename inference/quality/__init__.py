"""inference.quality."""
