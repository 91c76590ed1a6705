"""daemon.system."""
