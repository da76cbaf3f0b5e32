"""Envelopes: what collectors wrap around the record of a tool, and how files store it.

``records`` is the one way from bytes to a tool's own records, for ``import`` and for every later way in. The adapters
come after it and see the record as the tool wrote it. ``docs/envelopes.md`` lists the envelopes.
"""

from .reader import Envelopes, ToolRecord

__all__ = ["Envelopes", "ToolRecord"]
