"""Names of people, compared regardless of how a tool writes them. Access compares ids exactly."""

from __future__ import annotations

import unicodedata


def plain_name(name: str) -> str:
    """Return a name without outer white space, in one Unicode form and in one case."""
    # Folding may leave a sequence that has a shorter form.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())
