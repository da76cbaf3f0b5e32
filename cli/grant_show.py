"""``grantledger grants show``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..base.errors import EXIT_USAGE
from ..base.text import printable
from ..runtime.settings import Settings
from ..runtime.store_access import Ask, ask_store
from .errors import exit_code, fail
from .grant_history import read_history
from .grant_timeline import print_history
from .lag_note import noting_lag
from .output import Output, shortened
from .shrinking import ELLIPSIS

UNKNOWN = 1
CANDIDATES = 20
"""How many candidates of an ambiguous prefix are listed."""

_CANDIDATES = """
SELECT grant_id, argMax(subject_id, occurred_at) AS subject, argMax(resource_id, occurred_at) AS resource,
    count() OVER () AS total
FROM events
WHERE grant_id != '' AND (
    startsWith(grant_id, {prefix:String})
    OR ({short:Bool} AND startsWith(grant_id, {head:String}) AND endsWith(grant_id, {tail:String}))
)
GROUP BY grant_id
ORDER BY grant_id = {prefix:String} DESC, grant_id
LIMIT {limit:UInt32}
"""


def command(
    settings: Settings,
    output: Output,
    grant: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the grant, its beginning, or its short form in a list.")
    ],
) -> None:
    """Show one grant: request, approvals, activation, extensions, sessions and their commands, removal, lateness.

    Each line names its entry in the ledger; the end names the signed checkpoints that cover those entries. Nothing is
    verified here: `grantledger verify` does that. Times are those of the source's clock.

    Exit codes: 0 shown; 1 no grant has this id, or several ids begin with it: they are listed; 2 the store cannot be
    read.
    """
    with noting_lag(settings, quiet=output.quiet), exit_code(EXIT_USAGE), ask_store(settings) as ask:
        history = read_history(ask, _resolved(ask, grant))
    output.record(history.as_json(), lambda console: print_history(console, output, history), identity="grant_id")


def _resolved(ask: Ask, prefix: str) -> str:
    """Return the only grant with this id or prefix; otherwise list the candidates and end the command."""
    head, short, tail = prefix.partition(ELLIPSIS)  # as lists shorten it
    found = ask(_CANDIDATES, prefix=prefix, short=bool(short), head=head, tail=tail, limit=CANDIDATES)
    if len(found) == 1 or (found and found[0]["grant_id"] == prefix):
        return str(found[0]["grant_id"])
    if not found:
        fail(f"no grant id begins with {shortened(prefix, 80)!r}; `grantledger grants list --all` lists them", UNKNOWN)
    total = found[0]["total"]
    lines = [f"{total:,} grant ids begin with {shortened(prefix, 80)!r}; give more of the id:"]
    for row in found:
        about = f"{shortened(row['subject'], 60)}, {shortened(row['resource'], 60)}"
        lines.append(f"  {printable(row['grant_id'])}  {about}")
    if total > len(found):
        lines.append(f"  … and {total - len(found):,} more")
    fail("\n".join(lines), UNKNOWN)
