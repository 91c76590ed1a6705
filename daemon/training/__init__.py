"""daemon.training."""
