"""A stand-in for Leica LAS X: its CAM server, the scanner behind it, the tree of files that it writes, and faults."""
