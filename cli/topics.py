"""``grantledger topics``."""

from __future__ import annotations

import typer

from ..base.errors import EXIT_DEPENDENCY
from ..kafka.topics import check_topics
from ..runtime.initialise import ensure_topics, required_topics
from ..runtime.settings import Settings
from .output import Output, text_column


def create(settings: Settings, output: Output) -> None:
    """Create the topics that are missing, then compare all of them with the required configuration.

    Exit codes: 0 all match; 1 something differs, or Kafka does not answer; 2 a topic cannot be created.
    """
    settings.cluster().check_answers()
    output.note(f"created {ensure_topics(settings)} topics")
    check(settings, output)


def check(settings: Settings, output: Output) -> None:
    """Compare the topics with the required configuration, and name each difference.

    Exit codes: 0 all match; 1 something differs, or Kafka does not answer; 2 a topic is missing.
    """
    settings.cluster().check_answers()
    differences = check_topics(settings.cluster(), required_topics(settings))
    output.rows(
        [{"difference": difference} for difference in differences],
        identity="difference",
        show=[text_column("difference", "difference")],
        fields=("difference",),
        empty="all topics match the required configuration",
    )
    if differences:
        raise typer.Exit(EXIT_DEPENDENCY)
