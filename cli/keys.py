"""``grantledger keys``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..ledger.anchor import anchor_origin
from ..ledger.entry import origin_of
from ..ledger.key_list import write_key_list
from ..ledger.keys import LogKeys
from ..ledger.note import verifier_key
from ..runtime.keys import load_log_keys
from ..runtime.settings import Settings
from ..schemas.event import ACTIVITY_TOPIC, LIFECYCLE_TOPIC
from ..schemas.topics import INPUT_TOPICS
from .output import Output, text_column


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
