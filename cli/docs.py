"""The page of commands, generated from their help: ``python -m grantledger.cli.docs > docs/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from typer.testing import CliRunner

from .app import app
from .tree import COMMANDS, Group

_HEAD = """\
# Commands

<!-- Generated: python -m grantledger.cli.docs > docs/cli.md -->

This page is the `--help` of every command. `grantledger --install-completion` turns on completion in your shell.

- `-o json|csv|yaml` prints data for programs; notes for people go to standard error. `-o wide` prints a table that
  shortens nothing, on a narrow terminal too.
- `--tz` sets the time zone of the output; the default is UTC.
- `-q` prints ids only, one per line.
- A finding or a grant can be named by the beginning of its id, a grant also by its short form in a list (`data…9f3`).
- If the store lacks an entry that was sealed over 10 seconds ago, `grants`, `findings` and `query` print a note.
"""


def page() -> str:
    """Return the page as Markdown."""
    sections = [_HEAD, _section(2, ())]
    for command in _commands():
        sections.append(_section(len(command) + 1, command))
    return "\n".join(sections)


def _commands() -> Iterator[tuple[str, ...]]:
    for name, entry in COMMANDS.items():
        yield (name,)
        if isinstance(entry, Group):
            yield from ((name, each) for each in entry.commands)


def _section(level: int, command: tuple[str, ...]) -> str:
    # The runner fixes the width of the help, so that the page does not depend on a terminal.
    result = CliRunner().invoke(app, [*command, "--help"], prog_name="grantledger")
    if result.exit_code != 0:
        raise RuntimeError(f"{' '.join(command)} --help: {result.stderr}")
    text = "\n".join(line.rstrip() for line in result.stdout.splitlines()).strip()
    return f"{'#' * level} {' '.join(('grantledger', *command))}\n\n```\n{text}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(page())
