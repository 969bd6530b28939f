"""A trained run as a file for other programs: a model that needs neither this package nor Flax."""
