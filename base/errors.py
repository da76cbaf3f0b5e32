"""The base of our own errors: whether a retry helps, and the exit code for a supervisor.

A command prints these errors as one line, without a traceback. Any other exception is a bug.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_DEPENDENCY = 1
"""A dependency failed: a broker, a database, a transaction. Restart the process."""
EXIT_USAGE = 2
"""A setting, a file or an argument is missing or wrong."""
EXIT_STOPPED = 3
"""The ledger contradicts itself or its surroundings. A restart changes nothing; a person must investigate."""


class GrantledgerError(Exception):
    """Base of the errors that people see. The message contains the problem, the place and the remedy."""

    retryable: ClassVar[bool] = False
    """Whether the same operation may succeed later, without any change."""
    exit_code: ClassVar[int] = EXIT_DEPENDENCY


class UsageError(GrantledgerError):
    """A setting, a file or an argument is missing or wrong."""

    exit_code = EXIT_USAGE


class DependencyError(GrantledgerError):
    """Something that we depend on failed or did not answer."""

    retryable = True
    exit_code = EXIT_DEPENDENCY


class StoppedError(GrantledgerError):
    """Going on would damage the ledger or hide a contradiction."""

    exit_code = EXIT_STOPPED
