"""Notes on what an answer of the store lacks: for people only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from grantledger.cli import lag_note
from grantledger.cli.output import Output
from grantledger.runtime.settings import Settings


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_commands_print_no_note_about_old_states(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def ask_states(_settings: Settings, on_old: Callable[[], None]) -> Iterator[None]:
        on_old()
        yield

    monkeypatch.setattr(lag_note, "ask_states", ask_states)
    monkeypatch.setattr(lag_note, "load_engine_early", lambda _: None)
    with lag_note.asking_states(Settings(), Output(quiet=quiet)):
        pass
    assert ("has not computed the states" in capsys.readouterr().err) != quiet
