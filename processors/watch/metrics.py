"""Metrics of the watch."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

JUDGED_UNTIL = Gauge(
    "grantledger_watch_judged_until_seconds", "Time up to which every grant has been judged, in seconds since 1970."
)
LAG = Gauge("grantledger_watch_lag_entries", "Records of access.lifecycle that the watch has not applied yet.")
UNCONFIRMED = Gauge(
    "grantledger_watch_unconfirmed",
    "1 while something is due and lag hides the answer; findings are then unconfirmed.",
)
FINDINGS = Counter("grantledger_watch_findings_total", "Findings opened, by rule.", ["rule"])
RESOLVED = Counter("grantledger_watch_resolved_total", "Findings resolved, by rule.", ["rule"])
COMMANDS = Counter("grantledger_watch_commands_total", "Commands published: to revoke access, or to look it up.")
SNAPSHOT_FAILURES = Counter("grantledger_watch_snapshot_failures_total", "Snapshots that could not be written.")
FAULTS = Counter("grantledger_watch_faults_total", "Sealed records or events that could not be judged.")
GRANTS = Gauge("grantledger_watch_grants", "Grants that the watch follows.")
ACTIVE = Gauge("grantledger_watch_active", "1 if this process watches, 0 if it stands by.")
JUMPS = Counter("grantledger_watch_clock_jumps_total", "Jumps of this machine's clock, by kind.", ["kind"])
