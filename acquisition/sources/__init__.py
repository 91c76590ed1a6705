"""Where frames come from: one file or room an instrument, each a `StackSource`."""
