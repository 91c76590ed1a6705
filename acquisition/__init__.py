"""Everything between the instrument and the disk: sources, the bounded channel, the durable Zarr store."""

if __name__ != "spheroidd.acquisition":
    raise ImportError(
        "import spheroidd.acquisition, not acquisition: the bare folder would make a second copy of every class"
    )
