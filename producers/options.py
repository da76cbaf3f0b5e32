"""The librdkafka options of a sender that must not lose events: the values we set, and the values we reject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.errors import UsageError

DEFAULTS: dict[str, Any] = {
    "client.id": "grantledger",
    "compression.type": "zstd",
    "linger.ms": 5,
    "topic.metadata.refresh.interval.ms": 60_000,
}
"""Preferences: callers may override them."""

REQUIRED: dict[str, Any] = {"enable.idempotence": True, "acks": "all"}
"""Required for safe delivery: callers cannot change them."""

_ACKS = ("acks", "request.required.acks")
_REPORTS = ("on_delivery", "dr_cb", "dr_msg_cb", "error_cb", "logger")
_RETRIES = ("retries", "message.send.max.retries")


class OptionError(UsageError):
    """An option is missing, wrong or would weaken delivery. ``option`` is its name."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


def safe_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the caller's options for librdkafka with the defaults and the required values.

    Raises:
        OptionError: an option is missing, or could lose an event or its delivery report.
    """
    if not options.get("bootstrap.servers"):
        raise OptionError("bootstrap.servers", "is missing: set the brokers, as host:port,host:port")
    _reject_weak(options)
    nested = options.get("default.topic.config")
    if isinstance(nested, Mapping):
        _reject_weak(nested)
    return {**DEFAULTS, **options, **REQUIRED}


def _reject_weak(options: Mapping[str, Any]) -> None:
    for option in _ACKS:
        if option in options and str(options[option]).lower() not in ("all", "-1"):
            raise OptionError(option, f"{options[option]!r} can lose events when a broker fails; it must be all")
    if "enable.idempotence" in options and str(options["enable.idempotence"]).lower() not in ("true", "1"):
        raise OptionError("enable.idempotence", "must be true: without it a retry can duplicate or reorder events")
    if str(options.get("delivery.report.only.error", False)).lower() in ("true", "1"):
        raise OptionError("delivery.report.only.error", "must be false: every event needs a delivery report")
    for option in _RETRIES:
        if option in options and str(options[option]) == "0":
            raise OptionError(option, "must not be 0: one lost response would lose the event")
    if options.get("transactional.id"):
        raise OptionError("transactional.id", "is not supported: the client sends outside transactions")
    for option in _REPORTS:
        if option in options:
            raise OptionError(option, "is reserved for the client; pass Client(on_delivery=…) instead")
