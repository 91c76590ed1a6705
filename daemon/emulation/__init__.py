"""daemon.emulation."""
