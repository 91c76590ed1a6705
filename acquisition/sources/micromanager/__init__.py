"""Micro-Manager: the core in a process of its own, its frames over a ring in shared memory."""
