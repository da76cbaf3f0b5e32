"""``grantledger grants show``."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ..base.text import printable
from ..runtime.settings import Settings
from ..sinks.clickhouse import Ask, Row
from .errors import fail
from .grant_command import options_of
from .grant_history import FIRST_COMMANDS, MOST_COMMANDS, read_history
from .grant_state import PastEnd, limit_text, limits_in, past_end, policy_end
from .grant_timeline import print_history
from .grants import OF_SOURCE, PAST_END, SourceOption, TenantOption
from .lag_note import asking_states
from .output import Format, Output, shortened
from .shrinking import ELLIPSIS

if TYPE_CHECKING:
    from ..processors.watch_policy import GrantLimits

UNKNOWN = 1
CANDIDATES = 20
"""How many candidates of an ambiguous prefix are listed."""

_LONGEST = re.compile(r'"max_seconds": ?[0-9]')
_POLICY = "SELECT policy FROM watch_policy"
_CANDIDATES = f"""
SELECT *, count() OVER () AS total
FROM
(
    SELECT grant_id, grant_key, tenant, grant_source_system AS source_system, grant_source_instance AS source_instance,
        argMax(subject_id, (issued, occurred_at)) AS subject, argMax(resource_id, (issued, occurred_at)) AS resource,
        max(issued) AS known
    FROM
    (
        SELECT *, event_type IN ('grant.activated', 'grant.extended') AND grant_source_system = source_system
            AND grant_source_instance IN ('', source_instance) AS issued
        FROM events
        WHERE grant_id != '' AND believed AND (
            startsWith(grant_id, {{prefix:String}})
            OR ({{short:Bool}} AND startsWith(grant_id, {{head:String}}) AND endsWith(grant_id, {{tail:String}}))
        )
    )
    GROUP BY grant_id, grant_key, tenant, grant_source_system, grant_source_instance
)
WHERE {OF_SOURCE}
ORDER BY grant_id = {{prefix:String}} DESC, known DESC, grant_id, grant_key
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
"""``known``: its own source gave it. Others can claim any id."""


def command(
    settings: Settings,
    output: Output,
    grant: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the grant, its beginning, or its short form in a list.")
    ],
    tenant: TenantOption = "",
    source: SourceOption = "",
) -> None:
    """Show one grant: request, approvals, activation, extensions, sessions and their commands, removal, lateness.

    Each line names its entry in the ledger; the end names the signed checkpoints that cover those entries. Nothing is
    verified here: `grantledger verify` does that. Times are those of the source's clock.

    Two tenants, tools or installations may use one id: `--source` and `--tenant` choose between them.

    Exit codes: 0 shown; 1 no grant has this id, or several grants have it or ids that begin with it: they are listed;
    2 the store cannot be read.
    """
    commands = MOST_COMMANDS if output.format is Format.wide else FIRST_COMMANDS
    with asking_states(settings, output) as ask:
        history = read_history(ask, resolved(ask, grant, tenant, source), commands=commands)
        now, state = datetime.now(UTC), history.state
        limits = _limits(ask, state) if state is not None else None
        ended = _past_end(settings, state, limits, now) if state is not None else None
    limit = limit_text(output, state, limits) if state is not None else ""
    record = history.as_json() | {
        "past_end": asdict(ended) if ended is not None else None,
        "max_seconds": limits.max_seconds if limits is not None else None,
        "policy_end": policy_end(state, limits) if state is not None else None,
    }
    output.record(
        record, lambda console: print_history(console, output, history, ended, now, limit=limit), identity="grant_id"
    )  # fmt: skip


def _limits(ask: Ask, state: Row) -> GrantLimits | None:
    """Return the limits of a grant by the policy on record. Most grants need none: reading a policy takes a while."""
    policy = ask(_POLICY)[0]["policy"]
    return limits_in(policy, state) if state["state"] == PAST_END or _LONGEST.search(policy) else None


def _past_end(settings: Settings, state: Row, limits: GrantLimits | None, now: datetime) -> PastEnd | None:
    found = past_end(state, limits, None, now)
    if found is None or found.kind != "judged_soon":
        return found
    from ..runtime.watch_liveness import read_watch_liveness  # Kafka, and few grants are in this state

    return past_end(state, limits, read_watch_liveness(settings, state["tenant"]), now)


def resolved(ask: Ask, prefix: str, tenant: str, source: str, *, whole: bool = False) -> str:
    """Return the access key of the only grant with this id; otherwise list the candidates and end the command.

    Args:
        whole: the beginning of an id is not enough, only the id or its short form in a list.
    """
    head, short, tail = prefix.partition(ELLIPSIS)  # as lists shorten it
    names = {"prefix": prefix, "short": bool(short), "head": head, "tail": tail}
    found = ask(_CANDIDATES, **names, tenant=tenant, source=source, limit=CANDIDATES)
    exact = [row for row in found if row["grant_id"] == prefix]
    exact = [row for row in exact if row["known"]] or exact
    for fits in (exact, found if short or not whole else []):
        if len(fits) == 1:
            return str(fits[0]["grant_key"])
    shown = shortened(prefix, 80)
    if not found:
        fail(f"no grant id begins with {shown!r}; `grantledger grants list --all` lists them", UNKNOWN)
    if exact:
        lines = [f"{len(exact):,} grants have the id {shown!r}; give --source or --tenant:"]
        fail("\n".join([*lines, *map(_candidate, exact)]), UNKNOWN)
    total = found[0]["total"]
    begin = "1 grant id begins" if total == 1 else f"{total:,} grant ids begin"
    lines = [f"{begin} with {shown!r}; give {'the whole' if whole else 'more of the'} id:", *map(_candidate, found)]
    if total > len(found):
        lines.append(f"  … and {total - len(found):,} more")
    fail("\n".join(lines), UNKNOWN)


def _candidate(row: Row) -> str:
    about = f"{shortened(row['subject'], 60)}, {shortened(row['resource'], 60)}"
    return f"  {printable(row['grant_id'])}  {about}  {printable(shlex.join(options_of(row)))}"
