"""``grantledger topics``: make the topics, or check them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ..kafka.topics import check_topics, create_topics
from ..schemas.topics import topic_specs
from .running import settings_of, told


class What(StrEnum):
    """What to do with the topics."""

    create = "create"
    check = "check"


def command(
    context: typer.Context,
    what: Annotated[What, typer.Argument(help="create those that are missing, or check them all")],
) -> None:
    """Make the topics of a deployment, or check that they are as they must be.

    Exit codes: 0 all is as it must be, 1 something differs or the brokers do not answer, 2 a topic is missing or cannot
    be made.
    """
    settings = settings_of(context)
    specs = topic_specs(settings.activity_partitions, settings.payload_retention_days)
    with told():
        cluster = settings.cluster()
        if what is What.create:
            made = create_topics(cluster, specs, settings.kafka_replication)
            typer.echo(f"made {len(made)} topics, {len(specs) - len(made)} were there")
        differences = check_topics(cluster, specs)
    for difference in differences:
        typer.echo(difference, err=True)
    if differences:
        raise typer.Exit(1)
    typer.echo("topics are as they must be")
