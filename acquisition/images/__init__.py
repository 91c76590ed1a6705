"""Image files of other programs, read as stacks: one file a format, and what their names and metadata say."""
