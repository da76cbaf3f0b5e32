"""Runs a command in this process: the code of the command line without the start of Python."""

from __future__ import annotations

import subprocess
import traceback
from collections.abc import Mapping

import structlog
from typer.testing import CliRunner, Result

from grantledger.cli.app import app


def invoke(*arguments: str, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
    """Run ``grantledger`` with these arguments. An exception that it does not handle fails the test."""
    result = _run(arguments, stdin, env or {})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_command(
    *arguments: str, environment: Mapping[str, str], stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``grantledger`` with these arguments, and return its exit code and output as of a process."""
    result = _run(arguments, stdin, environment)
    errors = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        errors += "".join(traceback.format_exception(result.exception))
    return subprocess.CompletedProcess(list(arguments), result.exit_code, result.stdout, errors)


def _run(arguments: tuple[str, ...], stdin: str | bytes | None, environment: Mapping[str, str]) -> Result:
    try:
        return CliRunner().invoke(app, list(arguments), input=stdin, env=dict(environment), prog_name="grantledger")
    finally:
        structlog.reset_defaults()  # a command sends the logs of this process to its own standard error
