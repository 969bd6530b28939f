"""The timed workloads, each a function that prepares its inputs and returns what is to be run."""
