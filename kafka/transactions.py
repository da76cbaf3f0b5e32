"""Transactional calls: their outcome is not known until they return, so they are repeated; a stop is still heard."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from confluent_kafka import KafkaException

log = structlog.get_logger("grantledger.transactions")

SLICE = 4.0
"""Seconds that one call may block: in between, a signal reaches us."""
HANG = 7.0
"""Seconds after which a call will never return."""
PATIENCE = 60.0
"""Seconds in which a call must get through, or the process gives up."""
STOP_PATIENCE = 10.0
"""The same once a stop has been asked for."""
LOST = 1
"""Exit code: start it again."""


def insist(call: Callable[[float], Any], stopping: Callable[[], bool]) -> None:
    """Repeat a transactional call as long as it says that it may be repeated.

    Args:
        call: takes the seconds that it may block.
        stopping: whether a stop has been asked for.

    Raises:
        KafkaException: it failed for good, or did not get through in time.
    """
    began = time.monotonic()
    while True:
        try:
            with _end_if_hung():
                call(SLICE)
        except KafkaException as error:
            waited = time.monotonic() - began
            if not error.args[0].retriable() or waited >= (STOP_PATIENCE if stopping() else PATIENCE):
                raise
            log.warning("transaction_waits", reason=error.args[0].str(), seconds=round(waited, 1))
            time.sleep(0.1)  # some answers come at once
        else:
            return


@contextmanager
def _end_if_hung() -> Iterator[None]:
    """End the process when a call does not return long after its time.

    librdkafka may wait for ever, deaf to its own timeout and to signals, for a group coordinator that was restarted
    (its issues 5456 and 5511). Ending like this is safe: it is what ``kill -9`` does, and the next start goes on.
    """
    timer = threading.Timer(HANG, _end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end() -> None:
    log.error("transaction_hangs", seconds=HANG, action="this process ends; start it again")
    print("grantledger: a transaction hangs after the brokers were restarted; start again", file=sys.stderr, flush=True)
    os._exit(LOST)
