"""daemon.planning."""
