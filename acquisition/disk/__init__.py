"""acquisition.disk."""
