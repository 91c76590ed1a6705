"""The configuration: one frozen tree from TOML, its errors, and the table of sources."""
