"""Metrics of the enforcer. The help texts define them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

COMMANDS = Counter(
    "grantledger_enforce_commands_total",
    "Revoke commands read, by admission: work, done, joined, stale, invalid.",
    ["admission"],
)
ATTEMPTS = Counter(
    "grantledger_enforce_attempts_total",
    "Attempts by target and status: accepted, retry, failed.",
    ["target", "result"],
)
OUTCOMES = Counter(
    "grantledger_enforce_outcomes_total",
    "Ended commands: confirmed, accepted, failed or superseded.",
    ["target", "outcome"],
)
LOOKUPS = Counter(
    "grantledger_enforce_lookups_total",
    "Requests to look whether the access of a historical grant exists, by result: absent, present, unknown, skipped.",
    ["result"],
)
WOULD_REVOKE = Counter(
    "grantledger_enforce_dry_run_total", "Commands that a dry run would have carried out.", ["target"]
)
OPEN = Gauge("grantledger_enforce_open_commands", "Commands accepted and not ended.")
POSTPONED = Gauge("grantledger_enforce_postponed_commands", "Open commands whose access is covered by a running grant.")
BREAKER_OPEN = Gauge("grantledger_enforce_breaker_open", "Open breakers, one per source of grants and target.")
