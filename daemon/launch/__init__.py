"""daemon.launch."""
