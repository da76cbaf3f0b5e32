"""``grantledger keys``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..ledger.anchor import anchor_origin
from ..ledger.entry import origin_of
from ..ledger.key_list import write_key_list
from ..ledger.keys import LogKeys
from ..ledger.note import verifier_key
from ..runtime.key_rotation import rotate_key
from ..runtime.keys import load_log_keys, older_key_file
from ..runtime.settings import Settings
from ..schemas.event import ACTIVITY_TOPIC, LIFECYCLE_TOPIC
from ..schemas.topics import INPUT_TOPICS
from .output import Output, text_column
from .person import PersonOption, person, required


def command(
    settings: Settings,
    output: Output,
    epoch: Annotated[int, typer.Option(help="Epoch of the logs.", min=0)] = 0,
    pem: Annotated[bool, typer.Option("--pem", help="Print the list of public keys (log.pub) instead.")] = False,
) -> None:
    """Print the verifier key of every log (C2SP signed-note). With -q, only the keys, one per line.

    One key pair at a time signs all logs of a deployment; each verifier key starts with the origin of its log. If the
    file of public keys lists several, each signs from a size of the log on. Hand the keys to
    auditors over a channel that the operators of the ledger do not control.

    Exit codes: 0 printed; 2 the public key or the deployment's name is missing.
    """
    keys = load_log_keys(settings)
    if pem:
        typer.echo(write_key_list(keys).decode(), nl=False)
        return
    print_verifier_keys(settings, output, keys, epoch)


def rotate(
    settings: Settings,
    reason: Annotated[str, typer.Option(help="Why the key is replaced, for the record.")] = "",
    name: PersonOption = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Replace the private key of the logs. Stop all sealers and the anchor process first.

    The change is a sealed event, key.changed, with your name and reason: the last entry of access.findings that the old
    key signs. Run this where the private key is, as the user that owns it, with the key of grantledger-operator. If it
    is interrupted, run it again: it continues with the same new key. docs/backup.md has the whole procedure.

    Exit codes: 0 replaced; 1 Kafka does not answer, or you declined; 2 a key file or an option is wrong; 3 the anchor
    process or a sealer still runs, or a log is stopped.
    """
    reason, who = required(reason, "--reason"), person(name)
    question = f"Replace the key {settings.private_key_path}, as {who}? There is no undo."
    if not yes and not typer.confirm(question):
        raise typer.Exit(1)
    settings.cluster().check_answers()
    keys = rotate_key(settings, person=who, reason=reason, on_step=lambda step: typer.echo(f"  {step}"))
    older = older_key_file(settings, len(keys.keys) - 1).path
    typer.echo(f"The key of the logs is replaced; it is key {len(keys.keys)} now. Next, in this order:")
    typer.echo(f"1. Copy {settings.public_key_path} to every machine that reads sealed topics, and to your auditors.")
    typer.echo("2. Restart every process that reads them: store, watch, sweep, alert, enforce.")
    typer.echo(
        f"3. Copy {settings.private_key_path} and {older} to every machine on which a sealer runs, and back them up."
    )
    typer.echo("4. Start the sealers and the anchor process.")


def print_verifier_keys(settings: Settings, output: Output, keys: LogKeys, epoch: int = 0) -> None:
    """Print the verifier key of every log of the deployment."""
    deployment = settings.require_deployment()
    partitions = {ACTIVITY_TOPIC: settings.activity_partitions, LIFECYCLE_TOPIC: settings.lifecycle_shards}
    logs = [(topic, partition) for topic in INPUT_TOPICS for partition in range(partitions.get(topic, 1))]
    origins = [origin_of(deployment, topic, partition, epoch) for topic, partition in logs]
    origins.append(anchor_origin(deployment))
    rows = [
        {"origin": origin, "first_size": size, "verifier_key": verifier_key(origin, public_key)}
        for origin in origins
        for size, public_key in keys.periods(origin)
    ]
    columns = [
        text_column("origin", "origin"),
        text_column("from size", "first_size"),
        text_column("verifier key", "verifier_key"),
    ]
    output.rows(rows, identity="verifier_key", show=columns)
