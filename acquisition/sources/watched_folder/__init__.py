"""A folder into which another program writes stacks: what arrives there, and when it is complete."""
