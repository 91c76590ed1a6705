"""acquisition.plates."""
