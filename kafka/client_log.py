"""The log of librdkafka, for every Kafka client: without one, librdkafka writes lines of its own to standard error.

A client calls the logger from its ``poll``, ``consume`` and ``flush``, in the thread that calls them. Processes have a
handler for the log lines of libraries. Commands have none: their own errors name the relevant reason.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

REPEAT_SECONDS = 60.0
"""The same line is logged once in this time, whichever clients report it: each tries again several times per second."""
MOST_LINES = 1_000
"""Different lines that are remembered."""
_VARYING = re.compile(r"^\[thrd:[^\]]*\]: |\(after \d+ms in state [A-Z_]+(?:, \d+ identical error\(s\) suppressed)?\)")


class OncePerMinute(logging.Filter):
    """Drops a line that was logged less than ``REPEAT_SECONDS`` ago, and counts it. Safe in several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._known: dict[str, tuple[float, int]] = {}
        """By line: when it was logged last, and how often it was dropped since then."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record, whose arguments are facility, client and text."""
        args = record.args if isinstance(record.args, tuple) else ()
        text = _VARYING.sub("", str(args[-1] if args else record.msg)).strip()
        line, now = f"{args[0]}: {text}" if len(args) > 1 else text, self._clock()
        last, dropped = self._known.get(line, (None, 0))
        if last is not None and now - last < REPEAT_SECONDS:
            self._known[line] = last, dropped + 1
            return False
        if len(self._known) >= MOST_LINES:
            self._known.clear()
        self._known[line] = now, 0
        record.msg, record.args = line + (f" ({dropped:,} repeats left out)" if dropped else ""), ()
        return True


CLIENT_LOG = logging.getLogger("grantledger.librdkafka")
"""The logger of every Kafka client of the pipeline."""
KAFKA_LOGS = frozenset({CLIENT_LOG.name, "grantledger.kafka"})
"""The names of all loggers of Kafka clients: the client library for senders has one of its own."""
CLIENT_LOG.addFilter(OncePerMinute())
CLIENT_LOG.addHandler(logging.NullHandler())
