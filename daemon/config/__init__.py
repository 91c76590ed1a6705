"""daemon.config."""
