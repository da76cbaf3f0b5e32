"""The options that all commands share. Apart from the application, whose help must not import the settings."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..base.errors import GrantledgerError
from ..runtime.settings import load_settings
from ..runtime.unknown_variables import unknown_variables
from .container import needed_user
from .errors import fail
from .output import Format, FormatOption, Output, timezone

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        file_okay=False,
        help="Folder with the keys, the local stack and the embedded store. [GRANTLEDGER_DATA_DIR; default: data]",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", dir_okay=False, help="TOML file with settings. [GRANTLEDGER_CONFIG]")
]
ZoneOption = Annotated[
    str, typer.Option("--tz", metavar="ZONE", help="Time zone of the output: an IANA name, or local.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print only ids, one per line, for scripts.")]

_OUTPUT_OPTIONS = {
    "output_format": (FormatOption, Format.table),
    "zone": (ZoneOption, "UTC"),
    "quiet": (QuietOption, False),
}
_INJECTED = ("settings", "output")
_SETTINGS_OPTIONS = {"data_dir": (DataOption, None), "config": (ConfigOption, None)}


_WRONG_PATHS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


def with_common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the common options to a command.

    Every command gets ``--data`` and ``--config``, and receives the settings as the parameter ``settings``. A command
    with a parameter ``output`` also gets ``-o``, ``--tz`` and ``-q``. An error of ours becomes one line on standard
    error, and its exit code.
    """
    own = inspect.signature(function, eval_str=True)
    prints = "output" in own.parameters
    options: dict[str, tuple[Any, Any]] = (_OUTPUT_OPTIONS if prints else {}) | _SETTINGS_OPTIONS

    @functools.wraps(function)
    def wrapper(**arguments: Any) -> None:
        common = {name: arguments.pop(name) for name in options}
        if (structlog := sys.modules.get("structlog")) is not None:  # senders do not have it
            # Standard output is for the result, which programs parse.
            structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        try:
            if prints:
                zone = timezone(common["zone"])
                arguments["output"] = Output(common["output_format"], zone, common["quiet"])
            for line in unknown_variables(os.environ):
                typer.echo(f"warning: {line}", err=True)
            function(settings=load_settings(common["data_dir"], common["config"]), **arguments)
        except GrantledgerError as error:
            fail(f"{error}{needed_user(error)}", error.exit_code)
        except _WRONG_PATHS as error:  # a folder or file in the settings
            fail(f"{error.filename}: {error.strerror}{needed_user(error)}")

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [each.replace(kind=keyword) for each in own.parameters.values() if each.name not in _INJECTED]
    parameters += [
        inspect.Parameter(name, keyword, default=default, annotation=option)
        for name, (option, default) in options.items()
    ]
    wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper
