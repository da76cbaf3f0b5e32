"""Notes on what an answer of the store lacks: for people only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grantledger.cli import lag_note
from grantledger.cli.output import Output
from grantledger.runtime.settings import Settings
from grantledger.sinks.clickhouse import Ask


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_commands_print_no_note_about_old_states(
    quiet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def ask_states(_settings: Settings, on_old: Callable[[], None]) -> Iterator[Ask]:
        on_old()
        yield lambda _sql: [{"latest": datetime(2026, 3, 1, 12, tzinfo=UTC)}]

    monkeypatch.setattr(lag_note, "ask_states", ask_states)
    monkeypatch.setattr(lag_note, "load_engine_early", lambda _: None)
    with lag_note.asking_states(Settings(data_dir=tmp_path), Output(quiet=quiet)):
        pass
    complaint = capsys.readouterr().err
    assert ("has not computed the states" in complaint) != quiet
    stopped = f"Nothing runs in {tmp_path}: this is as of the last stored entry, 2026-03-01 12:00:00 UTC.\n"
    assert (stopped in complaint) != quiet
