"""daemon.catalog."""
