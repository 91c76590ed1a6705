"""Settings that describe plates and stacks, and labware formats."""
