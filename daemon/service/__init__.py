"""daemon.service."""
