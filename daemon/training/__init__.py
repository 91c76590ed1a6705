"""Training runs: emulated plates, recordings, the study, the models that are kept."""
