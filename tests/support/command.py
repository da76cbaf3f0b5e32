"""Runs a command in this process: the same code as the command line, without the cost of starting Python."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Mapping
from unittest import mock

from typer.testing import CliRunner

from grantledger.cli import main


def run_command(
    *arguments: str, environment: Mapping[str, str], stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``grantledger`` with these arguments and return its exit code and output."""
    code = 0
    with CliRunner().isolation(stdin, environment) as (output, errors, _):
        try:
            with mock.patch.object(sys, "argv", ["grantledger", *arguments]):
                main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        stdout, stderr = output.getvalue(), errors.getvalue()
    return subprocess.CompletedProcess(list(arguments), code, stdout.decode(), stderr.decode())
