"""How well two measurements agree: overlaps, surfaces, method comparison."""
