"""What the rows of a plate say together: curves, quality, and the tables that the terminal shows."""
