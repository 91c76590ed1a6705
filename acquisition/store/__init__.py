"""The durable Zarr store: slices into a ring file, then into shards, labels and pyramids."""
