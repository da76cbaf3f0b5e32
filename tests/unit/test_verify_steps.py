"""The steps of verification have the same numbers and names in the page, the table, the code and the report."""

from __future__ import annotations

import re
from pathlib import Path

from grantledger.verifier.report import VerifyReport
from grantledger.verifier.steps import STEPS, Problem

ROOT = Path(__file__).resolve().parents[2]
NAMES = {step.number: step.name for step in STEPS}
CODE = {
    path.relative_to(ROOT): path.read_text("utf-8")
    for path in (*sorted((ROOT / "verifier").glob("*.py")), ROOT / "ledger" / "log_verifier.py")
}


def test_the_page_numbers_them_alike() -> None:
    page = (ROOT / "docs" / "ledger.md").read_text("utf-8").partition("\n## How to verify\n")[2]
    found = re.findall(r"^(\d+)\. \*\*(.+?)\.\*\*", page, re.MULTILINE)
    assert [(int(number), name) for number, name in found] == list(NAMES.items())


def test_the_code_numbers_them_alike() -> None:
    named: set[int] = set()
    for path, text in CODE.items():
        for number, name in re.findall(r"\bStep (\d+), ([A-Z][a-z]+(?: [a-z]+)?)[:.]", text):
            assert NAMES[int(number)] == name, path
            named.add(int(number))
    assert named == set(NAMES)


def test_the_second_verifier_numbers_them_alike() -> None:
    text = (ROOT / "tests" / "second_verifier.py").read_text("utf-8")
    for number, name in re.findall(r"# Step (\d+), ([A-Z][a-z ]+)$", text, re.MULTILINE):
        assert NAMES[int(number)] == name
    # The states are no evidence: a verifier that computes them needs ClickHouse.
    assert {int(number) for number in re.findall(r"# Step (\d+)", text)} == set(NAMES) - {14}


def test_every_problem_belongs_to_a_step() -> None:
    checks = {check for step in STEPS for check in step.checks}
    used: set[str] = set()
    for path, text in CODE.items():
        if path.name == "steps.py":
            continue
        used |= set(re.findall(r"""(?:Problem|failed|failed_chunk|EntryError|Error)\([^"]*?"([a-z_]+)",""", text))
        used |= set(re.findall(r""", "([a-z_]+)", (?:index|0|None|batch)""", text))
    assert used <= checks, used - checks


def test_the_report_states_the_result_of_every_step() -> None:
    report = VerifyReport("clickhouse", "test.example", logs=1, entries=20_000, checkpoints=3, schemas=1, seconds=0.5)
    results = {step["name"]: step["result"] for step in report.as_json()["steps"]}
    assert results["Payload"] == results["Decoded columns"] == "passed"
    assert results["Anchors"] == results["Outside anchors"] == "not checked"
    assert list(report.as_text())[-1].startswith("SOUND")
    report.add(Problem("test.example/access.lifecycle/0/0", 7, "erased", "the payload is marked as erased"))
    report.schemas = None
    results = {step["name"]: step["result"] for step in report.as_json()["steps"]}
    assert (results["Payload"], results["Leaf"], results["Decoded columns"]) == ("failed", "incomplete", "not checked")
    assert report.as_json()["problems"][0]["step"] == 4
    text = "\n".join(report.as_text())
    assert "lifecycle/0/0 index 7: erased: the payload" in text and text.endswith("TAMPERED")


def test_the_report_states_what_it_does_not_prove() -> None:
    report = VerifyReport("kafka", "test.example", entries=1)
    assert any("no anchors from outside" in line for line in report.as_text())
    report.outside_anchors, report.nothing_outside = 3, ""
    assert not any("no anchors from outside" in line for line in report.as_text())
    assert report.not_proved() == report.as_json()["not_proved"]
    assert not any("anchors.jsonl" in line for line in report.as_text())
    report.own_anchor_file = "data/anchors.jsonl"
    report.outside_until_ms = 1_790_000_000_000
    assert any("anchor from outside, of 2026-09-21 14:13:20 UTC" in line for line in report.as_text())
    assert any("nobody changed data/anchors.jsonl together with the logs" in line for line in report.as_text())
    assert any("ClickHouse stores the same" in line for line in report.as_text())
    stored = VerifyReport("clickhouse", "test.example", entries=1)
    assert any("origins, anchors, the states, and" in line for line in stored.as_text())
    stored.unchecked_states = "--no-states"
    assert any("origins, anchors, and the definitions" in line for line in stored.as_text())


def test_names_in_the_report_cannot_write_to_the_terminal() -> None:
    report = VerifyReport("clickhouse", "test.example", heads={"d/\x1b[1A/0/0": (0, "00")})
    report.add(Problem("x\nSOUND: all is well\ud800", None, "origin", "it is not a log"))
    text = list(report.as_text())
    assert all(line.isprintable() for line in text)
    assert "Problem: x\\nSOUND: all is well\\ud800: origin: it is not a log" in text


def test_exit_codes() -> None:
    report = VerifyReport("kafka", "test.example")
    assert report.verdict.exit_code == 2
    report.anchors = 1
    assert report.verdict.exit_code == 4
    report.nothing_outside = ""
    assert report.verdict.exit_code == 0
    report.add(Problem("x", None, "batch", "not a sealed batch"))
    assert report.verdict.exit_code == 1
