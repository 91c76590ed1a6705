"""TIFF files and OME-TIFF sets: pages, chains, what is checked before a pixel is read, stacks made of pages."""
