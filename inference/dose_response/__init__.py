"""inference.dose_response."""
