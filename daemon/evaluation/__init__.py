"""daemon.evaluation."""
