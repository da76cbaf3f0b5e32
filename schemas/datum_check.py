"""Checks whether a datum is valid, without decoding it: one generated function per writer schema.

docs/ledger.md, "Valid datums", has the rules. The function walks over lengths and numbers, a few µs per event, and
takes time in proportion to the bytes of the datum. It decides alone which datums are valid: pyruhvro accepts the same
datums but rejects a whole run for one bad datum, and fastavro decodes only datums that passed this check.

Only numbers go from a schema into the generated text, never a name: whoever registers a schema cannot add code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .resolved import MICROS, resolve

_INLINE = 5
"""Types inside one another that become one function; deeper ones get their own."""
_LEAST_RUN = 3
"""Neighboring fields that are checked at once for all being empty."""


class InvalidDatumError(ValueError):
    """The datum breaks a rule that bytes running out does not break."""


@lru_cache(maxsize=256)
def datum_check(text: str) -> Callable[[bytes], bool]:
    """Return the check of a writer schema, given as JSON.

    Raises:
        UnusableSchemaError: every datum of the schema is invalid.
    """
    return _generate(resolve(text))


_SHORT = tuple(1 + (byte >> 1) if byte < 0x80 and not byte & 1 else 0 for byte in range(256))
"""For text whose length is one byte: the bytes that length and text take, by that byte. Else 0."""


def _number(datum: bytes, at: int) -> tuple[int, int]:
    """Return a number as it is on the wire (zigzag), and where the next one begins."""
    found = 0
    for shift in range(0, 70, 7):
        byte = datum[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found & 0xFFFF_FFFF_FFFF_FFFF, at
    raise InvalidDatumError("a number of more than ten bytes")


def _after_number(datum: bytes, at: int) -> int:
    return _number(datum, at)[1]


def _generate(schema: dict[str, Any]) -> Callable[[bytes], bool]:
    writer = _Writer()
    body = writer.body(schema, "    ", 0)
    lines = [*writer.functions, "def walk(d, i, e):", *body, "    return i"]
    names: dict[str, Any] = {"number": _number, "after": _after_number, "short": _SHORT, "Invalid": InvalidDatumError}
    exec("\n".join(lines), names)  # noqa: S102  # only our own text and numbers: see the head of this file
    walk: Callable[[bytes, int, int], int] = names["walk"]

    def check(datum: bytes) -> bool:
        """A length may point anywhere: reading there raises IndexError, and so does the end."""
        try:
            return walk(datum, 0, len(datum)) <= len(datum)
        except (IndexError, InvalidDatumError):
            return False

    return check


class _Writer:
    """Writes the lines that move ``i`` over one value in ``d``; ``e`` is the end of ``d``."""

    def __init__(self) -> None:
        self.functions: list[str] = []

    def body(self, node: Any, pad: str, depth: int) -> list[str]:
        if isinstance(node, list):
            return self._union(node, pad, depth)
        if isinstance(node, str):
            return _primitive(node, pad)
        if node["type"] == "fixed":
            return [f"{pad}i += {node['size']}"]
        if node["type"] == "enum":
            return [*_read(pad), f"{pad}if n & 1 or n >= {2 * len(node['symbols'])}: raise Invalid"]
        if depth >= _INLINE or node["type"] != "record":
            return [f"{pad}i = {self._function(node)}(d, i, e)"]
        return self._record(node, pad, depth)

    def _record(self, node: dict[str, Any], pad: str, depth: int) -> list[str]:
        lines: list[str] = []
        types = [field["type"] for field in node["fields"]]
        at = 0
        while at < len(types):
            run = at
            while run < len(types) and _often_one_zero_byte(types[run]):
                run += 1
            if run - at < _LEAST_RUN:
                lines += self.body(types[at], pad, depth + 1)
                at += 1
                continue
            lines += [f"{pad}if d[i : i + {run - at}] == {bytes(run - at)!r}: i += {run - at}", f"{pad}else:"]
            for one in types[at:run]:
                lines += self.body(one, pad + " ", depth + 1)
            at = run
        return lines

    def _union(self, branches: list[Any], pad: str, depth: int) -> list[str]:
        lines = _read(pad)
        if len(branches) == 2 and branches[0] == "null":
            inside = self.body(branches[1], pad + " ", depth + 1)
            return [*lines, f"{pad}if n:", f"{pad} if n != 2: raise Invalid", *inside]
        for number, branch in enumerate(branches):
            inside = self.body(branch, pad + " ", depth + 1)
            lines += [f"{pad}{'elif' if number else 'if'} n == {2 * number}:", *(inside or [f"{pad} pass"])]
        return [*lines, f"{pad}else: raise Invalid"] if branches else [f"{pad}raise Invalid"]

    def _function(self, node: dict[str, Any]) -> str:
        """Write a function for a list, or for a type deep inside others; return its name."""
        lines: list[str]
        if node["type"] == "record":
            lines = [*self.body(node, "    ", 0), "    return i"]
        else:
            key = _primitive("string", " " * 12) if node["type"] == "map" else []
            items = self.body(node["items" if node["type"] == "array" else "values"], " " * 12, 0)
            # A negative count stands before the size of its block in bytes, which is not used. The negative of -2^63
            # is no number of 64 bits: that block is empty. Each item takes a byte, so the end stops a false count.
            lines = [
                "    while True:",
                *_read(" " * 8),
                "        if n == 0: return i",
                "        if n & 1:",
                "            i = after(d, i)",
                "            n = 0 if n == 0xFFFFFFFFFFFFFFFF else n + 1",
                "        for _ in range(n >> 1):",
                *key,
                *items,
                "            if i > e: raise Invalid",
            ]
        name = f"f{len(self.functions)}"
        self.functions.append("\n".join([f"def {name}(d, i, e):", *lines]))
        return name


def _often_one_zero_byte(node: Any) -> bool:
    """Whether a value is often empty, and then one zero byte."""
    return node[:1] == ["null"] if isinstance(node, list) else isinstance(node, dict) and node["type"] == "array"


def _read(pad: str) -> list[str]:
    return [f"{pad}n = d[i]", f"{pad}if n < 128: i += 1", f"{pad}else: n, i = number(d, i)"]


def _primitive(kind: str, pad: str) -> list[str]:
    if kind in ("string", "bytes"):
        return [
            f"{pad}n = short[d[i]]",
            f"{pad}if n: i += n",
            f"{pad}else:",
            f"{pad} n, i = number(d, i)",
            f"{pad} if n & 1: raise Invalid",
            f"{pad} i += n >> 1",
        ]
    if kind in ("int", "long", MICROS):
        return [f"{pad}i = i + 1 if d[i] < 128 else after(d, i)"]
    if kind == "boolean":
        return [f"{pad}if d[i] > 1: raise Invalid", f"{pad}i += 1"]
    return {"null": [], "float": [f"{pad}i += 4"], "double": [f"{pad}i += 8"]}[kind]
