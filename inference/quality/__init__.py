"""Can an image, a well, a plate be trusted: profiles, flags, statistics of controls, a verdict."""
