"""The timed workloads: functions that prepare inputs and return a ``Workload``."""
