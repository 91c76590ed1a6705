"""Masks that people drew, read from label images and TrakEM2."""
