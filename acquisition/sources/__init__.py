"""acquisition.sources."""
