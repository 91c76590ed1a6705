"""inference.training."""
