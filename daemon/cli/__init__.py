"""daemon.cli."""
