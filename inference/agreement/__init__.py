"""inference.agreement."""
