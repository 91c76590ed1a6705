"""Stored stacks to rows: the worker process, its scheduler, and exclusions."""
