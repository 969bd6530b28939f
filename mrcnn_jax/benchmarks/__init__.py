"""What ``scripts/benchmark.py`` times: works of the product's own functions, on batches made in memory."""
