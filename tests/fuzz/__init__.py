"""Bytes that nobody meant: what the parsers make of them. `make fuzz`, or `python -m tests.fuzz`."""
