"""Reference implementations, which run in a separate interpreter."""
