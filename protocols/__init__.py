"""The nouns, the ports and the errors every other folder speaks in, and the one way to write a whole file.

Needs only stdlib, numpy and pydantic.
"""

if __name__ != "spheroidd.protocols":
    raise ImportError(
        "import spheroidd.protocols, not protocols: the bare folder would make a second copy of every class"
    )
