"""What the pipeline's commands share: the settings, and errors told in one line with the right exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import typer

from ..base.errors import GrantledgerError
from ..runtime.process import complain
from ..runtime.settings import Settings


def settings_of(context: typer.Context) -> Settings:
    """Return the settings that the application has read."""
    return cast("Settings", context.obj)


@contextmanager
def told(code: int | None = None) -> Iterator[None]:
    """Turn our own errors into one line on standard error and an exit code.

    Args:
        code: the exit code for all of them, where the command documents its own.
    """
    try:
        yield
    except GrantledgerError as error:
        complain(str(error))
        raise typer.Exit(error.exit_code if code is None else code) from error
