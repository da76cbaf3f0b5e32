"""``grantledger up``."""

from __future__ import annotations

from ..runtime.settings import Settings
from .stack_view import run_stack


def command(settings: Settings) -> None:
    """Run the local stack in the data folder until Ctrl-C, which drains and stops it.

    Kafka is a real broker in a child process, unless GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS is set. ClickHouse is the
    embedded engine, unless GRANTLEDGER_CLICKHOUSE_URL is set. The next start continues with the same data.

    Exit codes: 0 stopped on request; 1 something could not be started; 2 a setting is wrong, or a stack already runs
    in the data folder; 3 the ledger contradicts itself: a person must investigate.
    """
    run_stack(settings)
