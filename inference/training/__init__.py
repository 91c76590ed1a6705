"""Fitting the networks and the regressor: losses, patches, cross-validation, search."""
