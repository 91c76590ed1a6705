"""Everything between stored slices and a viability: pre-processing, networks, segmentation, counts."""

if __name__ != "spheroidd.inference":
    raise ImportError(
        "import spheroidd.inference, not inference: the bare folder would make a second copy of every class"
    )
