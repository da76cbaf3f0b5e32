"""Metrics of the enforcer, one line each with what it means."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

COMMANDS = Counter(
    "grantledger_enforce_commands_total",
    "Revoke commands read, by what became of them: work, done, joined, stale, invalid.",
    ["decision"],
)
ATTEMPTS = Counter(
    "grantledger_enforce_attempts_total",
    "Attempts, by target and answer: accepted, again, failed.",
    ["target", "result"],
)
OUTCOMES = Counter(
    "grantledger_enforce_outcomes_total",
    "Commands ended: confirmed, accepted, failed or superseded.",
    ["target", "outcome"],
)
WOULD_REVOKE = Counter(
    "grantledger_enforce_dry_run_total", "Commands that a dry run would have carried out.", ["target"]
)
OPEN = Gauge("grantledger_enforce_open_commands", "Commands begun and not ended.")
PUT_OFF = Gauge("grantledger_enforce_put_off_commands", "Open commands whose access another grant holds for now.")
BREAKER_OPEN = Gauge("grantledger_enforce_breaker_open", "1 while the breaker is open and waits for a person.")
