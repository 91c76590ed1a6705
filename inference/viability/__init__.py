"""Counts and volumes to viability: relation to controls, the regressor, plate-reader assays."""
