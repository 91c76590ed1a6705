"""Normalised volume to masks and objects, tile by tile, while later slices arrive."""
