"""What every process does: its status file, its metrics, and who may run beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from grantledger.runtime.process import configure_logs, read_samples, serving, status_path
from grantledger.runtime.settings import Settings, SettingsError
from support.command import run_command


def test_a_second_process_of_one_folder_is_refused_and_leaves_the_status_of_the_first(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with serving("seal", settings):
        with pytest.raises(SettingsError, match=r"`run seal` is already running"), serving("seal", settings):
            pass
        with serving("watch", settings):
            pass
        assert json.loads(status_path(tmp_path, "seal").read_text())["pid"] == os.getpid()
        assert read_samples(tmp_path, "seal")
    assert not status_path(tmp_path, "seal").exists()


def test_a_first_process_that_does_not_answer_keeps_its_files(tmp_path: Path) -> None:
    """It is busy, for example. Its status file once passed for that of an ended process, and was replaced."""
    settings = Settings(data_dir=tmp_path)
    with serving("seal", settings):
        path = status_path(tmp_path, "seal")
        path.write_text('{"pid": 1, "metrics": "http://127.0.0.1:1/metrics"}')
        before = path.read_text()
        with pytest.raises(SettingsError, match="already running"), serving("seal", settings):
            pass
        assert path.read_text() == before


def test_an_existing_data_folder_is_closed_to_other_users(tmp_path: Path) -> None:
    data, project = tmp_path / "data", tmp_path / "project"
    for folder in (data, project):
        for name in ("keys", "kafka", "logs"):
            (folder / name).mkdir(parents=True)
            (folder / name).chmod(0o755)
        folder.chmod(0o755)
        (folder / "deployment").write_text("")
    (project / "source").mkdir(mode=0o755)
    for folder in (data, project):
        with serving("seal", Settings(data_dir=folder)):
            assert {(folder / name).stat().st_mode & 0o777 for name in ("keys", "kafka", "logs", "run")} == {0o700}
    assert data.stat().st_mode & 0o777 == 0o700
    assert project.stat().st_mode & 0o777 == 0o755  # it has more than our data
    assert (project / "source").stat().st_mode & 0o777 == 0o755


def test_the_status_of_a_killed_process_stops_nobody(tmp_path: Path) -> None:
    path = status_path(tmp_path, "seal")
    path.parent.mkdir()
    path.write_text('{"pid": 1, "metrics": "http://127.0.0.1:1/metrics"}')
    with serving("seal", Settings(data_dir=tmp_path)):
        assert read_samples(tmp_path, "seal")


def test_a_port_that_another_process_has_taken_over_stops_nobody(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with serving("watch", Settings(data_dir=tmp_path)):
        status = json.loads(status_path(tmp_path, "watch").read_text())
        status_path(tmp_path, "seal").write_text(json.dumps(status | {"pid": ended.pid}))
        with serving("seal", Settings(data_dir=tmp_path)):
            assert read_samples(tmp_path, "seal")


@pytest.mark.parametrize("command", [("run", "store"), ("up",), ("demo",)])
def test_a_data_folder_that_cannot_be_made_is_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run_command(*command, "--data", str(tmp_path / "file" / "data"), environment={"PATH": os.environ["PATH"]})
    assert answer.returncode == 2
    assert str(tmp_path / "file") in answer.stderr and answer.stderr.count("\n") == 1, answer.stderr


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_name_in_a_log_line_controls_no_terminal(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format=log_format))
    structlog.get_logger("test").info("command", grant="\x1b[2J\x9b1A\u202eg1")
    printed = capsys.readouterr().err
    assert "g1" in printed and printed.strip().isprintable()


def test_labels_tell_the_metrics_of_shards_apart(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with serving("watch-1", settings, {"shard": "1"}):
        labeled = read_samples(tmp_path, "watch-1")
    with serving("watch", settings):
        plain = read_samples(tmp_path, "watch")
    assert {labels for name, labels in labeled if name == "process_open_fds"} == {"shard=1"}
    assert {labels for name, labels in plain if name == "process_open_fds"} == {""}
