"""Recorded stacks under an emulated microscope, in place of the phantom: what its camera sees of them."""
