"""Reference implementations that run in an interpreter of their own."""
