"""The tree of commands: what can be typed, what is suggested, what every help contains, and which output all share."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from grantledger.cli.container import IMAGE_DATA_DIR, IMAGE_USER, how_to_stop, needed_user
from grantledger.cli.output import Format, Output, moment, timezone
from grantledger.cli.person import person
from grantledger.cli.stack_view import executable
from grantledger.cli.tree import COMMANDS, Group
from grantledger.producers.adapters import ADAPTERS
from grantledger.runtime.settings import Settings
from grantledger.sinks.clickhouse import StoreUnavailableError
from support.command import invoke


def commands() -> Iterator[tuple[str, ...]]:
    for name, entry in COMMANDS.items():
        if isinstance(entry, Group):
            yield from ((name, each) for each in entry.commands)
        else:
            yield (name,)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("GRANTLEDGER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRANTLEDGER_DATA_DIR", str(tmp_path))


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_help_names_its_exit_codes_and_the_common_options(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    for text in ("Exit codes: 0 ", "--data", "--config"):
        assert text in result.stdout


def test_the_root_lists_every_command_without_importing_it() -> None:
    result = invoke("--help")
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    for name, entry in COMMANDS.items():
        if isinstance(entry, Group):
            shown = invoke(name, "--help").stdout
            assert all(f"\n  {each} " in shown for each in entry.commands)


def test_help_imports_neither_settings_nor_commands() -> None:
    program = (
        "import sys; from grantledger.cli.app import app; app(['grants', '--help'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('rich', 'grantledger.runtime.settings')))"
    )
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "suggested"),
    [
        (("grnts",), "Did you mean 'grants'?"),
        (("run", "sael"), "Did you mean 'seal'?"),
        (("findings", "clsoe", "x"), "Did you mean 'close'?"),
        (("import", "telport", "x"), "Did you mean 'teleport'?"),
        (("findings", "--rule", "overdeu"), "Did you mean 'overdue'?"),
    ],
)
def test_a_typo_is_answered_with_a_suggestion(arguments: tuple[str, ...], suggested: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert suggested in result.stderr


@pytest.mark.parametrize("gone", ["sample", "grant", "seal", "alert", "enforce"])
def test_old_names_are_gone(gone: str) -> None:
    assert invoke(gone).exit_code == 2


def test_tool_names_are_in_the_help() -> None:
    shown = " ".join(invoke("import", "--help").stdout.split())
    assert ", ".join(sorted(ADAPTERS)) in shown


def test_shell_completion_completes_commands_and_subcommands() -> None:
    for typed, expected in (("grantledger ver", "verify"), ("grantledger run se", "seal")):
        environment = {**os.environ, "_GRANTLEDGER_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": "9"}
        environment["COMP_CWORD"] = str(len(typed.split()) - 1)
        done = subprocess.run(
            [sys.executable, "-c", "from grantledger.cli import main; main()"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in done.stdout.split(), done.stderr


def rows(format_: Format, zone: str = "UTC", *, quiet: bool = False, count: int = 1) -> str:
    row = {"id": "a\x1b", "at": datetime(2026, 3, 1, 12, tzinfo=UTC), "list": [1, 2], "none": None}
    app = Output(format_, timezone(zone), quiet)
    stream, kept = io.StringIO(), sys.stdout
    sys.stdout = stream
    try:
        app.rows([row] * count, identity="id", fields=list(row), show=[], empty="Nothing.")
    finally:
        sys.stdout = kept
    return stream.getvalue()


def test_one_list_in_every_format() -> None:
    yaml = pytest.importorskip("yaml")
    plain = {"id": "a\x1b", "at": "2026-03-01T12:00:00+00:00", "list": [1, 2], "none": None}
    assert json.loads(rows(Format.json)) == [plain]
    assert yaml.safe_load(rows(Format.yaml)) == [plain]
    assert list(csv.DictReader(io.StringIO(rows(Format.csv)))) == [plain | {"list": "[1, 2]", "none": ""}]
    assert rows(Format.table, quiet=True) == "a\\x1b\n"
    assert rows(Format.table, count=0) == "Nothing.\n"
    assert (rows(Format.json, count=0), rows(Format.csv, count=0)) == ("[]\n", "id,at,list,none\n")


def test_times_in_another_zone() -> None:
    assert json.loads(rows(Format.json, "Asia/Tokyo"))[0]["at"] == "2026-03-01T21:00:00+09:00"
    assert moment(datetime(2026, 7, 1, 22, tzinfo=UTC), timezone("Europe/Berlin")) == "2026-07-02 00:00:00"
    assert timezone("local") is not None
    result = invoke("settings", "--tz", "Mars/Olympus")
    assert result.exit_code == 2
    assert "--tz: there is no time zone 'Mars/Olympus'" in result.stderr


@pytest.mark.parametrize("format_", ["json", "yaml"])
def test_settings_as_data(format_: str) -> None:
    if format_ == "yaml":
        pytest.importorskip("yaml")
    result = invoke("settings", "-o", format_)
    found = json.loads(result.stdout) if format_ == "json" else pytest.importorskip("yaml").safe_load(result.stdout)
    assert {"setting", "variable", "value", "meaning"} == set(found[0])
    assert "GRANTLEDGER_DATA_DIR" in invoke("settings", "-q").stdout.splitlines()


@pytest.mark.parametrize(
    ("data", "argv", "printed"),
    [
        ("data", ".venv/bin/grantledger", ".venv/bin/grantledger query 'SELECT 1'"),
        ("other data", ".venv/bin/grantledger", ".venv/bin/grantledger query 'SELECT 1' --data 'other data'"),
        ("data", "/opt/bin/grantledger", "/opt/bin/grantledger query 'SELECT 1'"),
    ],
)
def test_printed_commands_can_be_copied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: str, argv: str, printed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [argv])
    assert executable(Settings(data_dir=Path(data)), "query", "SELECT 1") == printed


def test_a_person_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr("getpass.getuser", nobody)
    assert person("") == f"uid {os.getuid()}"
    assert person(" carol ") == "carol"


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANTLEDGER_DATA_DIR", IMAGE_DATA_DIR)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/.dockerenv")
    monkeypatch.setattr("socket.gethostname", lambda: "223ab3ba30bd")


@pytest.mark.usefixtures("container")
def test_in_a_container_a_decision_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert person(" carol ") == "carol"
    with pytest.raises(typer.Exit):
        person("")
    assert "--as is needed in a container" in capsys.readouterr().err


@pytest.mark.usefixtures("container")
def test_in_a_container_docker_stops_a_stack() -> None:
    assert how_to_stop() == "`docker stop 223ab3ba30bd` drains and stops."


def test_on_a_machine_a_key_stops_a_stack() -> None:
    assert how_to_stop() == "Ctrl-C drains and stops."


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize(
    ("user", "said"), [(IMAGE_USER, "must belong to that user id"), (1234, f"made for user {IMAGE_USER}: leave out")]
)
def test_in_a_container_a_file_of_another_user_is_explained(
    monkeypatch: pytest.MonkeyPatch, user: int, said: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    error = StoreUnavailableError("no")
    error.__cause__ = PermissionError(13, "Permission denied")
    assert said in needed_user(error)
    assert needed_user(StoreUnavailableError("no")) == ""


def test_on_a_machine_a_file_of_another_user_is_only_named() -> None:
    assert needed_user(PermissionError(13, "Permission denied")) == ""


def test_the_image_has_the_user_and_the_folder_that_messages_name() -> None:
    text = (Path(__file__).parents[2] / "deploy" / "Dockerfile").read_text("utf-8")
    assert f"\nUSER {IMAGE_USER}:" in text
    assert f"GRANTLEDGER_DATA_DIR={IMAGE_DATA_DIR} " in text


@pytest.mark.parametrize("option", ["-q", "--tz=UTC"])
def test_query_refuses_the_output_options_that_it_cannot_honour(option: str) -> None:
    result = invoke("query", option, "SELECT 1")
    assert (result.exit_code, "No such option" in result.stderr) == (2, True)


def test_an_unknown_variable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANTLEDGER_DEPLOYMNET", "prod")
    monkeypatch.setenv("GRANTLEDGER_XYZ", "1")
    monkeypatch.setenv("GRANTLEDGER_TEST_SLOW", "1")
    result = invoke("settings", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)
    assert result.stderr.splitlines() == [
        "warning: the environment variable GRANTLEDGER_DEPLOYMNET is ignored: there is no such setting. Did you mean "
        "GRANTLEDGER_DEPLOYMENT?",
        "warning: the environment variable GRANTLEDGER_XYZ is ignored: there is no such setting. `grantledger "
        "settings` lists all of them.",
    ]


def test_status_where_nothing_runs(tmp_path: Path) -> None:
    result = invoke("status")
    assert result.exit_code == 2
    assert f"nothing runs in {tmp_path}" in result.stderr


@pytest.mark.parametrize("command", [("findings", "close", "x"), ("breaker", "close")])
def test_closing_needs_a_reason(command: tuple[str, ...]) -> None:
    result = invoke(*command)
    assert (result.exit_code, "--reason" in result.stderr) == (2, True)
    result = invoke(*command, "--reason", " ")
    assert result.exit_code == 2
    assert "--reason must not be empty" in result.stderr


@pytest.mark.parametrize("statement", ["", " \n"])
def test_an_empty_statement_is_named_as_such(statement: str) -> None:
    result = invoke("query", statement)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "grantledger: there is no statement: give one, or - to read it from standard input\n"
