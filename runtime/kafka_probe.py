"""Whether Kafka answers a process now, for its ``/readyz``. Clients of Kafka do not say so: they only try again."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from ..base.errors import GrantledgerError
from ..base.health import Condition
from ..kafka.client_log import CLIENT_LOG
from ..kafka.cluster import Cluster

PROBE_SECONDS = 2.0
"""Longest wait for an answer of the brokers."""
SAME_SECONDS = 1.0
"""Questions within so many seconds get the same answer: many of them cause few requests."""


class KafkaProbe:
    """Asks the brokers whenever it is called. The client is made on the first call, and stays connected.

    Args:
        cluster: returns the cluster. It may raise that it is not configured.
    """

    def __init__(self, cluster: Callable[[], Cluster], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._clock = cluster, clock
        self._lock = threading.Lock()
        self._errors = deque[KafkaError](maxlen=20)
        self._admin: AdminClient | None = None
        self._servers = ""
        self._asked_at: float | None = None
        self._answer: Condition | None = None

    def __call__(self) -> Condition | None:
        """Return that the process waits for Kafka, and why; None if Kafka answers."""
        with self._lock:
            if self._asked_at is None or self._clock() - self._asked_at > SAME_SECONDS:
                self._answer = self._ask()
                self._asked_at = self._clock()
            return self._answer

    def _ask(self) -> Condition | None:
        if self._admin is None:
            try:
                options = self._cluster().options
            except GrantledgerError as error:
                return Condition("kafka", str(error))
            self._servers = str(options["bootstrap.servers"])
            with_errors: dict[str, Any] = {**options, "error_cb": self._errors.append}
            self._admin = AdminClient(with_errors, logger=CLIENT_LOG)
        self._errors.clear()
        try:
            self._admin.describe_cluster(request_timeout=PROBE_SECONDS).result(PROBE_SECONDS + 1)
        except (KafkaException, TimeoutError) as error:  # librdkafka may lose a request
            self._admin.poll(0)
            reasons = [one.str() for one in self._errors if one.code() != KafkaError._ALL_BROKERS_DOWN]
            own = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
            reason = short_reason(reasons[-1] if reasons else own)
            return Condition("kafka", f"waits for Kafka at {self._servers}: {reason}")
        return None


def short_reason(text: str) -> str:
    """Return an error of librdkafka without the names of its threads and states, which say nothing to people."""
    found = re.fullmatch(r"(?:\S+/(?:bootstrap|\d+): )?(?:Connect to \S+ failed: )?(.*?)(?: \(after \d+ms.*\))?", text)
    return (found[1] if found else text) or text
