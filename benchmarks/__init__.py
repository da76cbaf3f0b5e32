"""Benchmarks: what the pipeline costs, beside a plain copy in the same run. ``make bench``."""
