"""daemon.scoring."""
