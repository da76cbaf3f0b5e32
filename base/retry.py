"""The retry policy: exponential backoff up to a cap. :func:`retry` blocks; :func:`backoff` is for schedulers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, stop_never, wait_exponential

from .health import HEALTH

Returned = TypeVar("Returned")


def backoff(failures: int, first: float, longest: float, jitter: float) -> float:
    """Return the seconds to wait after the given number of failures, where no call blocks meanwhile.

    The wait begins at ``first`` and doubles up to ``longest``. Half of it is random: ``jitter``, uniform in 0 to 1,
    keeps attempts that failed together from being repeated together.
    """
    # The exponent is bounded so that many failures cannot overflow a float.
    return min(longest, first * 2.0 ** min(failures - 1, 60)) * (0.5 + jitter / 2)


def retry(
    call: Callable[[], Returned],
    *,
    retryable: Callable[[BaseException], bool],
    timeout: float | None = None,
    first_wait: float = 0.05,
    longest_wait: float = 2.0,
    on_retry: Callable[[BaseException], None] = lambda error: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Returned:
    """Return the result of ``call``; repeat it while it raises a retryable error.

    Args:
        retryable: whether to retry after an error. It may also check the clock or a stop flag.
        timeout: seconds after which the last error is raised instead. None: no limit.
        first_wait: seconds before the second attempt; each further wait is twice as long.
        longest_wait: cap of a single wait, in seconds.
        on_retry: called with the error before each wait.
        sleep: waits for a number of seconds. An exception from it ends the retries.
    """

    def before_sleep(state: RetryCallState) -> None:
        HEALTH.progressed()  # what waits for a dependency does not hang
        if state.outcome is not None and (error := state.outcome.exception()) is not None:
            on_retry(error)

    retrying = Retrying(
        retry=retry_if_exception(retryable),
        stop=stop_never if timeout is None else stop_after_delay(timeout),
        wait=wait_exponential(first_wait, max=longest_wait),
        before_sleep=before_sleep,
        sleep=sleep,
        reraise=True,
    )
    return retrying(call)
