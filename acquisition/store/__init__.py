"""acquisition.store."""
