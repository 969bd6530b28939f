"""Training: targets, losses, the optimizer, the step and the loop around it."""
