"""A data directory's copy at another place, made while a plate runs, verified there, and brought back to any moment."""
