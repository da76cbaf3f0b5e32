"""``grantledger erase``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..base.errors import EXIT_USAGE
from ..base.text import printable
from ..ledger.entry import split_entry_name
from ..runtime.operator_events import erase_payload
from ..runtime.settings import Settings
from ..runtime.store_access import ask_store
from ..schemas.event import NEVER_ERASED
from .errors import exit_code, fail
from .person import PersonOption, person, required

_ENTRY = """
SELECT event_type, subject_id, append_time, erased_at IS NOT NULL AS erased
FROM entries WHERE origin = {origin:String} AND `index` = {index:UInt64}
"""


def command(
    settings: Settings,
    entry: Annotated[str, typer.Argument(metavar="ORIGIN:INDEX", help="The entry, as `grants show` names it.")],
    legal_basis: Annotated[
        str, typer.Option(help="Why the payload must go, for example 'GDPR art. 17, request 4711', for the record.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    name: PersonOption = "",
) -> None:
    """Erase the payload of one entry, as the law may require. The ledger still verifies: it needs only the hash.

    The erasure is itself a sealed event, payload.erased, with your name and the legal basis. The stores then delete the
    payload and its decoded columns. This cannot be undone. Kafka keeps its copy until the retention time of the topics
    has passed (payload_retention_days).

    Exit codes: 0 on record; 1 Kafka does not answer, or you declined; 2 there is no such entry, or an option is wrong.
    """
    deployment = settings.require_deployment()
    try:
        origin, index = split_entry_name(entry if "#" in entry else "#".join(entry.rsplit(":", 1)))
    except ValueError:
        fail(f"give the entry as ORIGIN:INDEX, for example {deployment}/access.lifecycle/0/0:17")
    if not origin.startswith(f"{deployment}/"):
        fail(f"the entry is not of this deployment, {deployment}")
    basis = required(legal_basis, "--legal-basis")
    with exit_code(EXIT_USAGE), ask_store(settings) as ask:
        found = ask(_ENTRY, origin=origin, index=index)
    if not found:
        fail(f"the store has no entry {printable(origin)}:{index}")
    row = found[0]
    if row["erased"]:
        fail(f"the payload of {printable(origin)}:{index} is erased already")
    if row["event_type"] in NEVER_ERASED:
        fail(f"{row['event_type']} cannot be erased: verification needs it")
    about = f"{printable(row['event_type'] or 'undecoded record')} of {printable(row['subject_id'] or 'no subject')}"
    if not yes and not typer.confirm(f"Erase the payload of {printable(origin)}:{index}, {about}? There is no undo."):
        raise typer.Exit(1)
    who = person(name)
    erase_payload(settings, origin, index, person=who, legal_basis=basis)
    typer.echo(f"the erasure of {printable(origin)}:{index} is on record as {who}; the stores carry it out")
