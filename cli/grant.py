"""``grantledger grant``: one grant from its request to its removal."""

from __future__ import annotations

from typing import Annotated

import typer

from ..runtime.process import complain
from .asking import Ask, asking
from .grant_story import read_story
from .grant_timeline import print_story
from .running import settings_of
from .terminal import as_json, printable, shortened

UNKNOWN = 1
CANDIDATES = 20
"""Candidates of an ambiguous beginning that are listed."""

_CANDIDATES = """
SELECT grant_id, argMax(subject_id, occurred_at) AS subject, argMax(resource_id, occurred_at) AS resource,
    count() OVER () AS total
FROM events
WHERE startsWith(grant_id, {beginning:String}) AND grant_id != ''
GROUP BY grant_id
ORDER BY grant_id = {beginning:String} DESC, grant_id
LIMIT {limit:UInt32}
"""


def command(
    context: typer.Context,
    grant: Annotated[str, typer.Argument(metavar="ID", help="Id of the grant, or how it begins.")],
    as_json_: Annotated[
        bool, typer.Option("--json", help="Print an object: grant, events, sessions, proof, verified.")
    ] = False,
) -> None:
    """Tell one grant: request, approvals, activation, extensions, sessions with their commands, removal, lateness.

    Each line names the entry of the ledger that says so; the end says which signed checkpoints cover those entries.
    Nothing is checked here: `grantledger verify` does that. Times are UTC, by the clock of the source.

    Exit codes: 0 told; 1 no grant has this id, or several begin so: they are listed; 2 the store cannot be read.
    """
    settings = settings_of(context)
    with asking(settings) as ask:
        story = read_story(ask, _resolved(ask, grant))
    if as_json_:
        typer.echo(as_json(story.as_json()))
    else:
        print_story(story)


def _resolved(ask: Ask, beginning: str) -> str:
    """Return the only grant that has this id or begins with it; else say so and end the command."""
    found = ask(_CANDIDATES, beginning=beginning, limit=CANDIDATES)
    if len(found) == 1 or (found and found[0]["grant_id"] == beginning):
        return str(found[0]["grant_id"])
    if not found:
        complain(f"no grant on record begins with {shortened(beginning, 80)!r}; `grantledger grants --all` lists them")
        raise typer.Exit(UNKNOWN)
    total = found[0]["total"]
    complain(f"{total:,} grants begin with {shortened(beginning, 80)!r}; give more of the id:")
    for row in found:
        about = f"{shortened(row['subject'], 60)}, {shortened(row['resource'], 60)}"
        typer.echo(f"  {printable(row['grant_id'])}  {about}", err=True)
    if total > len(found):
        typer.echo(f"  … and {total - len(found):,} more", err=True)
    raise typer.Exit(UNKNOWN)
