"""docs/wire.md and docs/examples: tables, worked examples and constants are those of the code."""

from __future__ import annotations

import io
import re
from pathlib import Path

import fastavro
import pytest

from grantledger.schemas.catalog import event_schema, load, released
from grantledger.schemas.event import EVENT_ID_NAMESPACE
from grantledger.schemas.framing import single_object_prefix
from grantledger.schemas.topics import MAX_RECORD_BYTES
from support.command import invoke
from support.vectors import events
from support.wire_page import PAGE, renewed

ROOT = PAGE.parents[1]
TEXT = PAGE.read_text("utf-8")
SOURCES = {path.suffix: path.read_text("utf-8") for path in (ROOT / "docs" / "examples").glob("*/[sS]end.*")}


def test_the_page_is_what_the_code_gives() -> None:
    assert renewed(TEXT) == TEXT, "run: PYTHONPATH=tests python -m support.wire_page"


def test_the_limits_are_those_of_the_topics() -> None:
    assert MAX_RECORD_BYTES == (4 << 20) - 1024 and "4 MiB less 1 KiB" in TEXT


@pytest.mark.parametrize("text", [TEXT, *SOURCES.values()], ids=["page", *SOURCES])
def test_schema_and_prefix_belong_together(text: str) -> None:
    numbers = set(re.findall(r"released/event\.(\d+)\.avsc", text))
    assert len(numbers) == 1
    prefixes = set(re.findall(r"c301[0-9a-f]{16}", text))
    assert prefixes == {single_object_prefix(released("event")[int(numbers.pop())]).hex()}


def test_the_page_names_the_newest_schema() -> None:
    assert event_schema().prefix.hex() in TEXT


@pytest.mark.parametrize("suffix", [".go", ".java", ".ts", ".py"])
def test_the_examples_have_the_namespace_and_wait_for_all_replicas(suffix: str) -> None:
    source = SOURCES[suffix]
    assert EVENT_ID_NAMESPACE.hex in source.replace("-", "")
    acknowledged = {".go": "kgo.AllISRAcks()", ".java": '"acks", "all"', ".ts": "acks: -1", ".py": '"acks": "all"'}
    assert acknowledged[suffix] in source
    idempotent = {".java": '"enable.idempotence", true', ".ts": "idempotent: true", ".py": '"enable.idempotence": True'}
    assert idempotent.get(suffix, "package main") in source and "DisableIdempotentWrite" not in source


def test_the_output_of_check_event_is_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    event = events()["activation"][1]
    out = io.BytesIO(bytes(event_schema().prefix))
    out.seek(0, io.SEEK_END)
    wrong = {"outcome": "done", "entitlement": None, "event_id": "17"}
    fastavro.schemaless_writer(out, load("event"), event.to_datum() | wrong)
    Path("value.bin").write_bytes(out.getvalue())
    result = invoke("check-event", "value.bin", "--topic", "access.activity", "--key", "g-18")
    shown = TEXT.split("<!-- check -->\n```\n")[1].split("```\n<!-- /check -->")[0]
    assert result.exit_code == 1
    assert f"$ grantledger check-event value.bin --topic access.activity --key g-18\n{result.stderr}" == shown
