"""The content of a run's directory: settings, categories and checkpoints."""
