"""Commands of ``grantledger``, called in this process."""

from __future__ import annotations

from collections.abc import Mapping

from typer.testing import CliRunner, Result

from grantledger.cli.app import app


def invoke(*arguments: str, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
    """Run a command; an exception that a user would see as a traceback fails the test."""
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=dict(env or {}), prog_name="grantledger")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
