"""This machine: clock, locks, the allocator, systemd, addresses."""
