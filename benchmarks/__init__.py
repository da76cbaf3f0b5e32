"""Benchmarks: the cost of the pipeline compared with a plain copy in the same run. ``make bench``."""
