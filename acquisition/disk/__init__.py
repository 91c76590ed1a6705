"""Files that survive a power cut, and who may use the disk first."""
