"""librdkafka options for a sender whose events must not be lost: what is set, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "client.id": "grantledger",
    "compression.type": "zstd",
    "linger.ms": 5,
    "topic.metadata.refresh.interval.ms": 60_000,
}
"""Taste, not safety: a caller may change these."""

REQUIRED: dict[str, Any] = {"enable.idempotence": True, "acks": "all"}
"""Safety: DESIGN section 5, rule 5. A caller may repeat these and nothing else."""

_ACKS = ("acks", "request.required.acks")
_REPORTS = ("on_delivery", "dr_cb", "dr_msg_cb", "error_cb", "logger")
_RETRIES = ("retries", "message.send.max.retries")


class OptionError(ValueError):
    """A producer option that is missing, or that would weaken delivery. ``option`` names it."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


def safe_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for librdkafka, with the safe ones set.

    Args:
        options: librdkafka options as the caller has them, ``bootstrap.servers`` at least.

    Raises:
        OptionError: names the option that is missing or would let an event be lost or go unreported.
    """
    if not options.get("bootstrap.servers"):
        raise OptionError("bootstrap.servers", "is required: the brokers to send to, as host:port,host:port")
    _refuse_weak(options)
    nested = options.get("default.topic.config")
    if isinstance(nested, Mapping):
        _refuse_weak(nested)
    return {**DEFAULTS, **options, **REQUIRED}


def _refuse_weak(options: Mapping[str, Any]) -> None:
    for option in _ACKS:
        if option in options and str(options[option]).lower() not in ("all", "-1"):
            raise OptionError(option, f"{options[option]!r} would lose events when a broker fails; it must be all")
    if "enable.idempotence" in options and str(options["enable.idempotence"]).lower() not in ("true", "1"):
        raise OptionError("enable.idempotence", "must stay true: without it a retry repeats or reorders events")
    if str(options.get("delivery.report.only.error", False)).lower() in ("true", "1"):
        raise OptionError("delivery.report.only.error", "must stay false: an event counts as sent when it is reported")
    for option in _RETRIES:
        if option in options and str(options[option]) == "0":
            raise OptionError(option, "must not be 0: one lost answer would lose the event")
    if options.get("transactional.id"):
        raise OptionError("transactional.id", "is not for senders: the client sends outside transactions")
    for option in _REPORTS:
        if option in options:
            raise OptionError(option, "is the client's own; give Client(on_delivery=…) instead")
