"""``grantledger keys``: print the verifier keys."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..ledger.anchor import anchor_origin
from ..ledger.entry import origin_of
from ..ledger.keys import public_pem
from ..ledger.note import verifier_key
from ..runtime.keys import load_public_key
from ..schemas.event import ACTIVITY_TOPIC
from ..schemas.topics import INPUT_TOPICS
from .running import settings_of, told


def command(
    context: typer.Context,
    epoch: Annotated[int, typer.Option(help="Epoch of the logs.", min=0)] = 0,
    pem: Annotated[bool, typer.Option("--pem", help="Print the public key as PEM instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object from origin to verifier key.")] = False,
) -> None:
    """Print the verifier key of every log (C2SP signed-note), one a line.

    One key pair signs all logs of a deployment; the name in front is the log's origin. Give them to whoever checks
    checkpoints, on another way than the checkpoints themselves.

    Exit codes: 0 printed, 2 the public key or the deployment's name is missing.
    """
    settings = settings_of(context)
    with told():
        public_key = load_public_key(settings)
        deployment = settings.require_deployment()
    if pem:
        typer.echo(public_pem(public_key).decode(), nl=False)
        return
    partitions = {topic: settings.activity_partitions if topic == ACTIVITY_TOPIC else 1 for topic in INPUT_TOPICS}
    logs = [(topic, partition) for topic, count in partitions.items() for partition in range(count)]
    origins = [origin_of(deployment, topic, partition, epoch) for topic, partition in logs]
    keys = {origin: verifier_key(origin, public_key) for origin in [*origins, anchor_origin(deployment)]}
    typer.echo(json.dumps(keys, indent=2) if as_json else "\n".join(keys.values()))
