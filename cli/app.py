"""The application: the tree of commands, and the options that all commands share."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..base.errors import GrantledgerError
from ..runtime.settings import load_settings, unknown_variables
from .errors import fail, missing_packages
from .output import Format, FormatOption, Output, timezone
from .tree import COMMANDS, Command, Group

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
            fail(str(error), error.exit_code)
        except _WRONG_PATHS as error:  # a folder or file in the settings
            fail(f"{error.filename}: {error.strerror}")

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [each.replace(kind=keyword) for each in own.parameters.values() if each.name not in _INJECTED]
    parameters += [
        inspect.Parameter(name, keyword, default=default, annotation=option)
        for name, (option, default) in options.items()
    ]
    wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


class LazyCommand(TyperCommand):
    """A command in help and completion, imported when it is invoked: senders lack the packages of the pipeline."""

    def __init__(self, name: str, command: Command) -> None:
        super().__init__(name, help=command.summary, short_help=command.summary)
        self._command = command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the command and parse its arguments."""
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> Any:
        """Import the command."""
        module_name, _, function_name = self._command.target.partition(":")
        with missing_packages(str(self.name)):
            module = importlib.import_module(f".{module_name}", __package__)
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(short_help=self._command.summary)(with_common_options(getattr(module, function_name)))
        command = typer.main.get_command(app)
        command.name = self.name
        return command


class LazyGroup(TyperGroup):
    """A group of lazy commands. Without a command, or with options only, it runs the default one."""

    def __init__(self, name: str, group: Group) -> None:
        self._default = group.default
        super().__init__(
            name=name,
            commands={each: LazyCommand(each, command) for each, command in group.commands.items()},
            help=group.summary + (f" Without a command: {group.default}." if group.default else ""),
            short_help=group.summary,
            no_args_is_help=not group.default,
            rich_markup_mode=None,
        )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the default command if none is given."""
        if self._default and (not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)):
            args = [self._default, *args]
        return super().parse_args(ctx, args)


class RootGroup(TyperGroup):
    """The root of the tree."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.add_command(LazyGroup(name, entry) if isinstance(entry, Group) else LazyCommand(name, entry))


app = typer.Typer(cls=RootGroup, name="grantledger", rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True, no_args_is_help=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Record temporary production access in a tamper-evident ledger.

    `grantledger demo` shows everything with simulated traffic.
    """
    if version:
        from .. import __version__

        typer.echo(f"grantledger {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app(prog_name="grantledger")
