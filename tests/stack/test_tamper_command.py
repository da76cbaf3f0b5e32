"""``grantledger verify`` on a data folder that was changed: exit codes and reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grantledger.ledger.keys import LocalSigner, public_pem
from support.pipeline import Pipeline
from support.tamper import copied
from support.tampered_ledger import (
    ANCHORS,
    DEPLOYMENT,
    LIFECYCLE,
    Ledger,
    execute,
    problems,
    row,
    rows,
)


def assert_could_not_check(answer: tuple[int, str]) -> None:
    code, printed = answer
    report = json.loads(printed)
    assert (code, report["verdict"], report["sound"]) == (2, "could_not_check", False) and report["could_not_check"]


class TestCommandLine:
    """``grantledger verify`` on a data folder: exit codes and the JSON report."""

    def verify(self, ledger: Ledger, folder: Path, *arguments: str) -> tuple[int, str]:
        environment = ledger.pipeline.environment | {"GRANTLEDGER_DATA_DIR": str(folder)}
        broken = Pipeline(ledger.pipeline.bootstrap_servers, folder, environment)
        broken.environment["GRANTLEDGER_DATA_DIR"] = str(folder)
        answer = broken.run("verify", "-o", "json", *arguments)
        return answer.returncode, answer.stdout

    @pytest.fixture
    def folder(self, ledger: Ledger, tmp_path: Path) -> Path:
        folder = tmp_path / "data"
        for name in ("clickhouse", "keys"):
            copied(ledger.pipeline.data_dir / name, folder / name)
        (folder / "anchors.jsonl").write_bytes(ledger.anchor_file.read_bytes())
        return folder

    def test_sound(self, ledger: Ledger, folder: Path) -> None:
        code, printed = self.verify(ledger, folder)
        assert code == 0 and json.loads(printed)["sound"] is True

    def test_without_a_key(self, ledger: Ledger, folder: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.pub"
        other.write_bytes(public_pem(LocalSigner.generate().public_key))
        code, printed = self.verify(ledger, folder, "--public-key", str(other))
        report = json.loads(printed)
        assert code == 2 and report["verdict"] == "could_not_check" and not report["sound"]
        assert "the public key that you brought" in report["could_not_check"][0]
        (folder / "keys" / "log.pub").unlink()
        assert_could_not_check(self.verify(ledger, folder))
        other.write_text("no key")
        assert_could_not_check(self.verify(ledger, folder, "--public-key", str(other)))

    def test_another_deployment(self, ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(ledger.pipeline.environment, "GRANTLEDGER_DEPLOYMENT", "other.example")
        code, printed = self.verify(ledger, folder)
        assert code == 2 and "another deployment than other.example" in json.loads(printed)["could_not_check"][0]

    def test_without_a_store(self, ledger: Ledger, folder: Path, tmp_path: Path) -> None:
        (folder / "clickhouse").rename(tmp_path / "away")
        assert_could_not_check(self.verify(ledger, folder))

    def test_without_the_anchors_named(self, ledger: Ledger, folder: Path) -> None:
        assert_could_not_check(self.verify(ledger, folder, "--anchors", str(folder / "none.jsonl")))

    def test_compared_with_nothing_outside(self, ledger: Ledger, folder: Path) -> None:
        file = folder / "anchors.jsonl"
        for change in (lambda: file.write_text("x\n"), file.unlink):
            change()
            code, printed = self.verify(ledger, folder)
            assert code == 4 and json.loads(printed)["verdict"] == "sound_compared_with_nothing_outside"

    def test_a_remembered_head(self, ledger: Ledger, folder: Path, tmp_path: Path) -> None:
        """The end of the log, the anchors stored here and the file of anchors are gone: only the state shows it."""
        state = tmp_path / "state.json"
        assert self.verify(ledger, folder, "--state", str(state))[0] == 0
        before = state.read_bytes()
        (folder / "anchors.jsonl").unlink()
        execute(folder, f"DELETE FROM entries WHERE {rows(ledger.full[0], ledger.size())}")
        covered = (
            f"toUInt64OrZero(splitByChar('\\n', arrayFirst(body -> startsWith(body, '{LIFECYCLE}\\n'), bodies))[2])"
        )
        execute(folder, f"DELETE FROM anchors WHERE {covered} > {ledger.full[0]}")
        code, printed = self.verify(ledger, folder)
        assert code == 4, printed
        code, printed = self.verify(ledger, folder, "--state", str(state))
        assert code == 1 and (LIFECYCLE, ledger.full[0], "truncated") in problems(json.loads(printed))
        assert state.read_bytes() == before
        state.write_text("{}")
        assert_could_not_check(self.verify(ledger, folder, "--state", str(state)))

    def test_going_on_from_a_state(self, ledger: Ledger, folder: Path, tmp_path: Path) -> None:
        state = str(tmp_path / "state.json")
        assert_could_not_check(self.verify(ledger, folder, "--since", state))
        code, printed = self.verify(ledger, folder, "--state", state)
        whole = json.loads(printed)
        assert code == 0 and whole["not_read"] == 0
        code, printed = self.verify(ledger, folder, "--since", state, "--state", state)
        report = json.loads(printed)
        assert code == 0 and report["heads"] == whole["heads"] and report["remembered"] >= len(whole["heads"])
        assert report["not_read"] + report["entries"] == whole["entries"] and report["not_read"] > report["entries"]
        assert "--since" in report["unchecked_states"]
        assert_could_not_check(self.verify(ledger, folder, "--since", state, "--from", "kafka"))

    def test_changed_by_sql(self, ledger: Ledger, folder: Path) -> None:
        """An operator with a client and all rights changes the store: each log in another way."""
        ways = {
            "ALTER TABLE entries UPDATE subject_id = 'mallory' WHERE {row}": "columns",
            "DELETE FROM entries WHERE {row}": "index",
            "INSERT INTO entries SELECT * FROM entries WHERE {row}": "index",
        }
        expected = []
        for (log, index), (statement, check) in zip(ledger.events.items(), ways.items(), strict=False):
            execute(folder, statement.format(row=row(index, log)))
            expected.append((log, index, check))
        assert len(expected) == len(ways)
        code, printed = self.verify(ledger, folder)
        assert code == 1
        assert sorted(problems(json.loads(printed))) == sorted(expected)

    @pytest.mark.parametrize(
        ("statements", "origins"),
        [
            (
                (
                    "ALTER TABLE entries MODIFY COLUMN leaf_hash String",
                    "ALTER TABLE anchors MODIFY COLUMN time DateTime64(6, 'UTC')",
                ),
                {f"{DEPLOYMENT}/access.activity/0/0", ANCHORS},
            ),
            (("ALTER TABLE origins MODIFY COLUMN topic_id String",), {DEPLOYMENT}),
        ],
        ids=["entries and anchors", "origins"],
    )
    def test_a_column_of_another_type(
        self, ledger: Ledger, folder: Path, statements: tuple[str, ...], origins: set[str]
    ) -> None:
        """The report names it; the command does not fail."""
        for statement in statements:
            execute(folder, statement)
        code, printed = self.verify(ledger, folder)
        found = {where for where, _, check in problems(json.loads(printed)) if check == "format"}
        assert code == 1 and origins <= found

    def test_missing_end_that_may_not_be_stored_yet(self, ledger: Ledger, folder: Path) -> None:
        """The report is still TAMPERED and explains what to check."""
        execute(folder, f"DELETE FROM entries WHERE {rows(ledger.full[0], ledger.size())}")
        environment = ledger.pipeline.environment | {"GRANTLEDGER_DATA_DIR": str(folder)}
        answer = Pipeline(ledger.pipeline.bootstrap_servers, folder, environment).run("verify")
        assert answer.returncode == 1 and "TAMPERED" in answer.stdout
        assert f"{LIFECYCLE} index {ledger.full[0]}: truncated" in answer.stdout
        assert "not stored yet" in answer.stdout and "verify --from kafka" in answer.stdout
