"""Runs a command in this process: the same code as the command line, without the cost of starting Python."""

from __future__ import annotations

import subprocess
import traceback
from collections.abc import Mapping

from typer.testing import CliRunner, Result

from grantledger.cli.app import app


def invoke(*arguments: str, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
    """Run ``grantledger`` with these arguments; an exception that it does not handle fails the test."""
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=dict(env or {}), prog_name="grantledger")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_command(
    *arguments: str, environment: Mapping[str, str], stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``grantledger`` with these arguments and return its exit code and output."""
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=dict(environment), prog_name="grantledger")
    errors = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        errors += "".join(traceback.format_exception(result.exception))
    return subprocess.CompletedProcess(list(arguments), result.exit_code, result.stdout, errors)
