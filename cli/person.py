"""The name and the reason that are recorded with a person's decision."""

from __future__ import annotations

from typing import Annotated

import typer

from ..base.user import user_name
from .errors import fail

PersonOption = Annotated[
    str, typer.Option("--as", metavar="NAME", help="Your name for the record. Default: the user of this machine.")
]


def person(given: str) -> str:
    """Return the given name, else the name of the user who ran the command, through sudo or not."""
    return given.strip() or user_name()


def required(text: str, option: str) -> str:
    """Return the text of an option that is recorded; end the command if it is empty."""
    if not (stripped := text.strip()):
        fail(f"{option} must not be empty: it is recorded in the ledger")
    return stripped
