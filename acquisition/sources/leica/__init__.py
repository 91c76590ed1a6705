"""acquisition.sources.leica."""
