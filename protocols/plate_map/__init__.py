"""Plate maps as people write them: columns, labels, roles and units of doses, read from tables of any layout."""
