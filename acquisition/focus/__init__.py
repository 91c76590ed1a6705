"""Where the sharp plane of a well lies: focus curves, autofocus, and a map over the plate."""
