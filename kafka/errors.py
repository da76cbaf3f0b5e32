"""Kafka errors: transient ones, which are retried, fatal ones, which end a client, and their messages for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from ..base.errors import DependencyError, UsageError
from ..base.retry import retry

Returned = TypeVar("Returned")

REQUEST_TIMEOUT = 10.0
"""Seconds that one request to the brokers may take before it is retried."""
_LATE_SECONDS = 2.0
PATIENCE = 30.0
"""Seconds without an answer after which the brokers count as unavailable: longer than an election or a restart."""
TRANSACTION_PATIENCE = 60.0
"""The same where a request waits for the open transaction of a dead process: the broker aborts it in 10 to 20 s."""

_TRANSIENT = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
_STALE_LEADER = frozenset({KafkaError._NOENT, KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH})


class KafkaUnavailableError(DependencyError):
    """The brokers did not answer, or refused. The message names the setting to check."""


class KafkaOptionsError(UsageError):
    """librdkafka rejects the options of the settings. The message names the option and ``kafka_options``."""


def answer_of(future: Future[Returned]) -> Returned:
    """Return the result of a request of an admin client, but do not wait for it forever.

    If a broker restarts meanwhile, librdkafka 2.16.0 may lose a request: neither an answer nor its own timeout ever
    arrives.

    Raises:
        KafkaException: the request failed, or has no answer in time.
    """
    try:
        return future.result(REQUEST_TIMEOUT + _LATE_SECONDS)
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: an election, a restart, a slow broker."""
    if not isinstance(error, KafkaException):
        return False
    problem: KafkaError = error.args[0]
    return bool(problem.retriable()) or problem.code() in _TRANSIENT or problem.code() in _STALE_LEADER


def is_missing_topic(error: BaseException) -> bool:
    """Whether a topic or partition does not exist: also for a moment while a person deletes and creates a topic."""
    cause = error.__cause__ if isinstance(error, KafkaUnavailableError) else error
    return isinstance(cause, KafkaException) and cause.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def has_stale_leader(error: KafkaException) -> bool:
    """Whether an admin client still uses leaders from before a restart. It never refreshes them automatically."""
    return error.args[0].code() in _STALE_LEADER


def is_fatal(error: KafkaError) -> bool:
    """Whether a client is unusable from now on. Errors that arrive as messages show this in their code only."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def ends_reading(error: KafkaError) -> bool:
    """Whether a consumer cannot continue after an error that it delivers among its messages."""
    return is_fatal(error) or not (error.retriable() or is_transient(KafkaException(error)))


def unavailable(action: str, error: KafkaException) -> KafkaUnavailableError:
    """Return the error for people: the action that failed, why, and the setting to check."""
    return KafkaUnavailableError(f"{action}: {error.args[0].str()} (kafka_bootstrap_servers)")


@contextmanager
def raised_for_people(action: str, lost: Callable[[str], DependencyError] = KafkaUnavailableError) -> Iterator[None]:
    """Turn a KafkaException that ends a process into an error for people.

    Args:
        action: the action that failed, for example ``sealing cannot continue``.
        lost: makes the error if a retry cannot help: another process took over, or a transaction failed.
    """
    try:
        yield
    except KafkaException as error:
        if is_transient(error):
            raise unavailable(action, error) from error
        raise lost(f"{action}: {error.args[0].str()}") from error


def retry_transient(request: Callable[[], Returned], timeout: float = PATIENCE) -> Returned:
    """Send a request to the brokers and retry transient errors for at most ``timeout`` seconds.

    Raises:
        KafkaUnavailableError: no success within the timeout.
        KafkaException: the brokers refuse.
    """
    try:
        return retry(request, retryable=is_transient, timeout=timeout)
    except KafkaException as error:
        if is_transient(error):
            raise unavailable("Kafka does not answer", error) from error
        raise
