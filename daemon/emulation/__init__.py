"""Emulated instruments put together from `sim_emulator` and a source, for demos, tests and replays."""
