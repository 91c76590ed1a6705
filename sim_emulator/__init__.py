"""The synthetic microscope: phantom with truth, optics, camera, and recorded plates."""

if __name__ != "spheroidd.sim_emulator":
    raise ImportError(
        "import spheroidd.sim_emulator, not sim_emulator: the bare folder would make a second copy of every class"
    )
