"""daemon.web."""
