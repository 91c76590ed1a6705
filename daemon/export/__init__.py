"""daemon.export."""
