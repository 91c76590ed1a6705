"""Whether a data directory still is what was written: its catalog, its images, its masks, its figures."""
