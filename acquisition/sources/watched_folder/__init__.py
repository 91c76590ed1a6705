"""acquisition.sources.watched_folder."""
