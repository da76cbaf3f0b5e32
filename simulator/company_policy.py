"""The watch policy of the simulated company, ``policy.toml``: under it, only faults cause findings.

The limits are short because simulated lifecycles last minutes, not hours. Those that faults depend on are also here.
"""

from __future__ import annotations

from importlib.resources import files

SECOND = 1_000_000
"""Microseconds."""
GRACE = 10 * SECOND
APPROVAL_WAIT = 20 * SECOND
CONFIRM_WAIT = 60 * SECOND
LEASE = 240 * SECOND
ASSIGNMENT = 300 * SECOND
SILENCE = 120 * SECOND
GAP_WAIT = 15 * SECOND

POLICY = (files(__package__) / "policy.toml").read_text("utf-8")
