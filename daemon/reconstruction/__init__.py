"""Files of raw structured-illumination frames from the command line: what pattern they hold, and images of them."""
