"""``grantledger up``."""

from __future__ import annotations

from ..runtime.settings import Settings
from .stack_view import run_stack


def command(settings: Settings) -> None:
    """Start the local stack in the data folder, and stay until Ctrl-C, which drains and stops everything.

    Kafka is a real broker in a child process, unless GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS names one; ClickHouse is the
    embedded engine, unless GRANTLEDGER_CLICKHOUSE_URL names a server. The next start continues with the same data.

    Exit codes: 0 stopped on request; 1 something could not be started; 2 a setting is wrong, or a stack runs in the
    data folder already; 3 the ledger contradicts itself: a person must look.
    """
    run_stack(settings)
