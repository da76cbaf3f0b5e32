"""The faults of scenarios. A new one is a subclass of ``Fault`` in one of these modules.

``tests/support/expected.py`` lists the findings that the watch must report for each.
"""

from . import removal, use, approval, sources, claims, harmless  # noqa: F401, I001 - they register their faults in this order
from .fault import FAULTS, Fault, Part

__all__ = ["FAULTS", "Fault", "Part"]
