"""The name and the reason that are recorded with a person's decision."""

from __future__ import annotations

from typing import Annotated

import typer

from ..base.user import user_name
from .container import in_container
from .errors import fail

PersonOption = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Your name for the record. Default: the user of this machine; needed in a container.",
    ),
]


def person(given: str) -> str:
    """Return the given name, else the name of the user who ran the command, through sudo or not.

    In a container, everybody is the same user: the command ends.
    """
    if not (name := given.strip()) and in_container():
        fail("--as is needed in a container, where everybody is the same user: your name is recorded")
    return name or user_name()


def required(text: str, option: str) -> str:
    """Return the text of an option that is recorded; end the command if it is empty."""
    if not (stripped := text.strip()):
        fail(f"{option} must not be empty: it is recorded in the ledger")
    return stripped
