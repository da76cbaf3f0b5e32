"""The metric of the memory that a process holds itself."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import Gauge

ANONYMOUS_MEMORY = Gauge(
    "grantledger_process_anonymous_memory_bytes",
    "Memory of the process without files that the system may drop: RssAnon in /proc/PID/status; 0: unknown.",
)


def anonymous_bytes() -> float:
    """Return RssAnon of this process in bytes, or 0 where the system does not tell."""
    try:
        _, resident, shared = Path("/proc/self/statm").read_text().split()[:3]
    except (OSError, ValueError):
        return 0.0
    return float((int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE"))
