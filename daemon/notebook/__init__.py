"""Plates in notebooks: rows and curves as pandas frames, images and labels as lazy arrays. Reads, and never writes."""
