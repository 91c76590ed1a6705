"""Raw structured-illumination frames in, one slice of twice the sampling out: pattern, checks, generalised Wiener."""
