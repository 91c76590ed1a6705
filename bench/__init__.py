"""Measurements against the peers a user would otherwise pick. Each prints JSON; `python -m bench` runs them all."""
