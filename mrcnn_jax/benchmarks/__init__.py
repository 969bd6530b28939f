"""What ``scripts/benchmark.py`` and ``benchmark_growth.py`` time: works on batches made in memory."""
