"""Runs on several devices and processes."""
