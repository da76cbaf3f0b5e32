"""How commands end on an error: one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import NoReturn

import typer

from ..base.errors import EXIT_USAGE, GrantledgerError


def fail(message: str, code: int = EXIT_USAGE) -> NoReturn:
    """Print an error and exit."""
    typer.echo(f"grantledger: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def exit_code(code: int) -> Iterator[None]:
    """End the command with this code on any error of ours, where the command documents its own codes."""
    try:
        yield
    except GrantledgerError as error:
        fail(str(error), code)


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return the end of an error message: which of the names may have been meant."""
    found = get_close_matches(name, list(names))
    return f". Did you mean {' or '.join(map(repr, found))}?" if found else ""
