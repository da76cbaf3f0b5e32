"""Errors of commands: one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO, NoReturn

import typer

from ..base.errors import EXIT_USAGE, GrantledgerError
from ..base.text import printable_lines


def fail(message: str, code: int = EXIT_USAGE) -> NoReturn:
    """Print an error and exit. It may quote text from the ledger."""
    typer.echo(f"grantledger: {printable_lines(message)}", err=True)
    raise typer.Exit(code)


@contextmanager
def exit_code(code: int) -> Iterator[None]:
    """End the command with this code on any error of ours, for commands with their own exit codes."""
    try:
        yield
    except GrantledgerError as error:
        fail(str(error), code)


@contextmanager
def missing_packages(command: str, extra: str = "embedded") -> Iterator[None]:
    """End the command if one of its imports needs a package that is not installed. ``extra``: has it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("grantledger"):
            raise
        fail(f"`{command}` needs the package {error.name}: pip install 'grantledger[{extra}]'")


def open_to_write(path: Path, option: str) -> IO[bytes]:
    """Open a file that an option names; end the command if that is impossible."""
    try:
        return path.open("wb")
    except OSError as error:
        fail(f"{option}: {path} cannot be written ({error.strerror})")


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return the end of an error message, which suggests similar names."""
    found = get_close_matches(name, list(names))
    return f". Did you mean {' or '.join(map(repr, found))}?" if found else ""
