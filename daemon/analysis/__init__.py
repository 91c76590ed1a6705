"""daemon.analysis."""
