"""The application: the tree of commands. It imports only what help and completion need."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..base.imports import without_pandas
from .errors import missing_packages
from .tree import COMMANDS, Command, Group


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
        with missing_packages(str(self.name), self._command.extra):
            from .common_options import with_common_options

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
    without_pandas()
    app(prog_name="grantledger")
