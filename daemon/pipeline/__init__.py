"""daemon.pipeline."""
