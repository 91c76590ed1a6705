"""The nouns, the ports and the errors every other folder speaks in. Needs only stdlib, numpy and pydantic."""

if __name__ != "spheroidd.protocols":
    raise ImportError(
        "import spheroidd.protocols, not protocols: the bare folder would make a second copy of every class"
    )
