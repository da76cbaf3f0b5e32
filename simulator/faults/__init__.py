"""Faults: what goes wrong in a scenario, and which findings the watch must report for it.

A new fault is a subclass of ``Fault`` in one of these modules.
"""

from . import removal, use, approval, sources, harmless  # noqa: F401, I001 - they register their faults in this order
from .fault import FAULTS, Fault, Part

__all__ = ["FAULTS", "Fault", "Part"]
