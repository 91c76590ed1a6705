"""A plate's run: the source and store threads, the main loop, the queue of stacks, orders to it."""
