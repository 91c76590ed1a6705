"""Composition: configuration, pipeline, catalog and command line. The only folder that knows all the others."""

if __name__ != "spheroidd.daemon":
    raise ImportError("import spheroidd.daemon, not daemon: the bare folder would make a second copy of every class")
