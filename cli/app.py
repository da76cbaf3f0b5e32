"""The application: which commands there are, and the options that all of them have."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..runtime.settings import SettingsError, load_settings

COMMANDS = {
    "up": ("up", "Start the local stack: Kafka, sealer, store, anchor; Ctrl-C drains and stops it."),
    "emit": ("emit", "Send events given by flags or as JSON lines."),
    "import": ("import_", "Send the records of a tool's audit files, through its adapter."),
    "sample": ("sample", "Send made-up lives of grants, in the tools' own formats, through the adapters."),
    "query": ("query", "Ask the store in SQL, read-only."),
    "grants": ("grants", "List grants: who has what, until when, and what should be gone."),
    "grant": ("grant", "Tell one grant from its request to its removal."),
    "verify": ("verify", "Check that everything stored is what was sealed and signed."),
    "keys": ("keys", "Print the verifier keys of the logs."),
    "topics": ("topics", "Make the topics, or check that they are as they must be."),
    "seal": ("seal", "Run a sealer: chain and sign every record."),
    "store": ("store", "Run the sink: write sealed batches to ClickHouse."),
    "watch": ("watch", "Run the watch: follow every grant, and say where access did not end on time."),
    "sweep": ("sweep", "Run the sweep: hold what the watch says against what the store says."),
    "anchor": ("anchor", "Run the anchor: write the heads of all logs outside at a fixed rhythm."),
    "alert": ("alert", "Run the alerts: findings go to Alertmanager and webhooks, once."),
    "enforce": ("enforce", "Take access away as revoke commands say; a dry run unless told to act."),
    "settings": ("settings", "Print every setting with its meaning and its value."),
}
"""Name of each command, its module here, and its one line of help."""


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        file_okay=False,
        help="Folder of the keys, the local stack and the embedded store. [GRANTLEDGER_DATA_DIR; default: data]",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", dir_okay=False, help="TOML file of settings. [GRANTLEDGER_CONFIG]")
]


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--data`` and ``--config``, and put the settings they lead to into ``context.obj``."""

    @functools.wraps(function)
    def wrapper(*, data_dir: Path | None, config: Path | None, **arguments: Any) -> None:
        try:
            arguments["context"].obj = load_settings(data_dir, config)
        except SettingsError as error:
            typer.echo(f"grantledger: {error}", err=True)
            raise typer.Exit(2) from error
        function(**arguments)

    own = inspect.signature(function, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("data_dir", keyword, default=None, annotation=DataOption),
        inspect.Parameter("config", keyword, default=None, annotation=ConfigOption),
    ]
    parameters = [parameter.replace(kind=keyword) for parameter in own.parameters.values()] + added
    wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


class LazyGroup(TyperGroup):
    """Lists every command, and imports one only when it is asked for: sending needs none of the pipeline."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order in which a newcomer meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module_name, summary = COMMANDS[cmd_name]
        try:
            module = importlib.import_module(f".{module_name}", __package__)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("grantledger"):
                raise
            needed = f"`{cmd_name}` needs the package {error.name}: pip install 'grantledger[embedded]'"
            typer.echo(f"grantledger: {needed}", err=True)
            raise typer.Exit(2) from error
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(short_help=summary)(with_settings(module.command))
        command = typer.main.get_command(single)
        command.name = cmd_name
        return command


def _group() -> Any:
    app = typer.Typer(
        cls=LazyGroup, name="grantledger", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )

    @app.callback(invoke_without_command=True, no_args_is_help=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
        """The record of temporary production access that nobody can quietly change."""
        if version:
            from .. import __version__

            typer.echo(f"grantledger {__version__}")
            raise typer.Exit

    return typer.main.get_command(app)


def main() -> None:
    """Run the command line."""
    _group()(prog_name="grantledger")
