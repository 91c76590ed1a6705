"""The networks, their weights and cards, and their exchange format."""
