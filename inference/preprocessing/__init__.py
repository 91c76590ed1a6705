"""Slices to a normalised volume as they arrive: median, histogram, limits, resampling."""
