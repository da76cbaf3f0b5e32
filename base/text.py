"""Text that others chose, made safe for terminals and reports."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return a text with every unprintable character escaped: ESC as ``\x1b``.

    Control characters, line ends, direction marks and invisible characters could move the cursor, or hide or disguise a
    part of the output. Escaping twice changes nothing.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each printable."""
    return "\n".join(map(printable, text.split("\n")))


def counted(count: int, things: str) -> str:
    """Return a count with its noun, which is given in the plural: ``1 entry``, ``1,204 entries``."""
    if count == 1:
        things = things.removesuffix("ies") + "y" if things.endswith("ies") else things.removesuffix("s")
    return f"{count:,} {things}"
