"""The patterns that find the brackets of a JSON value, which are outside of strings."""

from __future__ import annotations

import re

MARK = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+")*+(["{}\[\]])')
"""The next bracket. Strings without escapes are skipped at once; a quotation mark starts any other string."""
MARK_OR_LINE = re.compile(rb'(?:[^"{}\[\]\n]++|"[^"\\\n]*+")*+(["{}\[\]\n])')
MARK_IN_STRING = re.compile(rb'[^"\\]*+(["\\])')
MARK_OR_LINE_IN_STRING = re.compile(rb'[^"\\\n]*+(["\\\n])')
CLOSING = {b"{": b"}", b"[": b"]"}
