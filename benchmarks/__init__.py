"""Benchmarks: run ``python -m benchmarks.NAME`` from the repository's root.

``speed`` times ops, inference, training and evaluation, against torchvision and the machine's peak; ``roi``
compares RoIAlign with RoIPool; ``growth`` shows how time grows with size; and ``data`` times the input
pipeline.
"""
