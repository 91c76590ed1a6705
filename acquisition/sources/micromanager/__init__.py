"""acquisition.sources.micromanager."""
