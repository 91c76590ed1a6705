"""daemon.report."""
