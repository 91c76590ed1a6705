"""acquisition.focus."""
