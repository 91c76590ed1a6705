"""The three ways to start: a run, the service, the demo."""
