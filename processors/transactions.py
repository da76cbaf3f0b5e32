"""Transactional calls: their outcome is not known until they return, so they are repeated; a stop is still heard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException

SLICE = 5.0
"""Seconds that one call may block: in between, a signal reaches us."""
PATIENCE = 60.0
"""Seconds in which a call must get through, or the process gives up."""
STOP_PATIENCE = 10.0
"""The same once a stop has been asked for."""


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
            call(SLICE)
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() - began >= (STOP_PATIENCE if stopping() else PATIENCE):
                raise
            time.sleep(0.1)  # some answers come at once
        else:
            return
