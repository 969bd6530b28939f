"""What a run's directory holds: its settings, its categories and its checkpoints."""
