"""Inputs that once gave a wrong number, or would have, each driven through the command line: `make cases`."""
