"""Reports on a run or a data set for people: one HTML file that a browser opens from disk.

What XLA makes of a program is reported by ``compile_report``.
"""
