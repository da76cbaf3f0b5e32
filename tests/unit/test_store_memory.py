"""The memory of the store: its division, and the records that wait."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from grantledger.runtime.anonymous_memory import anonymous_bytes
from grantledger.runtime.settings import Settings, SettingsError, load_settings
from grantledger.sinks.memory_plan import MIB, MemoryPlan
from grantledger.sinks.waiting_records import MOST_RECORDS, WaitingRecords


def record(size: int) -> Any:
    """Return a Kafka record of this size."""
    message = MagicMock()
    message.__len__.return_value = size
    return message


@pytest.mark.parametrize("megabytes", [1024, 4096, 65_536])
def test_the_parts_are_less_than_the_whole(megabytes: int) -> None:
    plan = MemoryPlan.of(megabytes)
    assert plan.engine + 4 * plan.group + plan.waiting + plan.fetched < megabytes * MIB
    assert plan.engine >= megabytes * MIB * 3 // 8
    caches = [value for name, value in plan.engine_options().items() if name.endswith("cache_size")]
    assert sum(caches) < plan.engine // 2


def test_a_record_that_is_larger_than_the_limit_waits_alone() -> None:
    waiting = WaitingRecords(100)
    assert not waiting and not waiting.full
    waiting.append(large := record(200))
    assert waiting and waiting.full
    assert waiting.popleft() is large
    assert not waiting and not waiting.full


def test_records_are_limited_by_bytes_and_by_number() -> None:
    waiting = WaitingRecords(100)
    waiting.append(record(60))
    assert not waiting.full
    waiting.append(record(40))
    assert waiting.full
    waiting.clear()
    assert not waiting.full
    for _ in range(MOST_RECORDS):
        waiting.append(record(1))
    assert waiting.full


def test_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANTLEDGER_STORE_MEMORY_MB", "512")
    with pytest.raises(SettingsError, match="GRANTLEDGER_STORE_MEMORY_MB: .*1024"):
        load_settings()
    monkeypatch.setenv("GRANTLEDGER_STORE_MEMORY_MB", "1500")
    assert load_settings().store_memory_mb == 1500 != Settings().store_memory_mb


def test_the_metric_of_memory_is_what_the_system_reports() -> None:
    [kib] = re.findall(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert anonymous_bytes() == pytest.approx(int(kib) * 1024, rel=0.2)
