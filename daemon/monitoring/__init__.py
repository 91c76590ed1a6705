"""daemon.monitoring."""
