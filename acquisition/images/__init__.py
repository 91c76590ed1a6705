"""acquisition.images."""
