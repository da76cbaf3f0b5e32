"""``grantledger grants`` and ``grantledger grant``: as a user runs them, on a store at rest and on one in use."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import unicodedata
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from rich.cells import cell_len
from rich.console import Console

from grantledger.base.text import printable
from grantledger.cli.findings import _FIELDS as _FINDING_FIELDS
from grantledger.cli.grants import _FIELDS
from grantledger.cli.output import moment, shortened, span
from grantledger.cli.shrinking import shrunk
from grantledger.console.address import read_address
from grantledger.runtime.open_findings import OpenFindings
from grantledger.runtime.settings import load_settings
from grantledger.runtime.store_access import ask_store
from grantledger.schemas.event import Actor, Approval, Finding, IssuingSource
from grantledger.schemas.finding_event import finding_id
from grantledger.schemas.finding_rules import FINDING_RULES
from grantledger.sinks.clickhouse import StoreAddress, StoreUnavailableError, connect
from support.access_store import DEPLOYMENT, Story, fill, opened_elsewhere
from support.command import invoke
from support.tamper import copied
from support.waiting import wait_for

EVIL = "\x1b]0;pwned\x07\x1b[2J\r\n\u202egnp.\u2066 [red]bold[/red] \x9b31m"
AWKWARD = "lease/a'b\\c\t\"d"
FORBIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def told() -> Story:
    story = Story()
    alice = {"subject": "alice@example.com", "actor": Actor("alice@example.com", "human")}
    ask = {"request_id": "r-1", **alice}
    story.add(story.event("request.created", -130, "r-1", reason="INC-4711: stuck migration", **ask), -130)
    approvals = (Approval("bob@example.com", "approved", at=story.at(-128)),)
    story.add(story.event("request.approved", -128, "r-1", approvals=approvals, **ask), -128)
    story.give("g-late-1", -120, -90, request_id="r-1", ticket="INC-4711", **alice)
    story.add(story.event("session.started", -119, "s-1", session_id="s-1", grant_id="g-late-1", **alice), -119)
    for number in range(5):
        story.act("s-1", -118 + number, f"psql -c {number}")
    story.give("g-late-1", -95, -60, again=True, actor=Actor("bob@example.com", "human"))
    story.add(story.remove("g-late-1", -61, "api_accepted"), -58)
    story.remove("g-late-1", -50)
    story.give("g-overdue", -200, -125.5, subject="mallory")
    story.remove("g-overdue", -125, "api_accepted")
    story.remove("g-overdue", -124.8, outcome="unknown")  # nobody knows whether the removal worked
    story.find("overdue", "g-overdue", -124, deadline=-125.5, grant_id="g-overdue", severity="critical")
    story.give("g-policy", -90, None, subject="mallory")  # its end is one of the policy
    story.find("overdue", "g-policy", -29, deadline=-30.5, grant_id="g-policy", severity="critical")
    story.give("g-raced", -90, -80, subject="mallory")
    story.find("overdue", "g-raced", -79, deadline=-80, grant_id="g-raced", severity="critical")
    story.remove("g-raced", -50)
    story.find("overdue", "g-lost", -89, deadline=-90.5, grant_id="g-lost", subject="mallory")
    story.give("g-certificate", -70, -65, subject="trent")
    story.give("g-locked", -70, -60, subject="peggy")
    story.find("overdue", "g-locked", -59, deadline=-60, grant_id="g-locked")
    story.remove("g-locked", -55, "api_accepted")
    story.find("overdue", "g-locked", -55, deadline=-60, resolved=True, grant_id="g-locked")
    story.give("g-soon", -5, 52.5, subject="bob")
    story.give("g-endless", -5, None, subject="carol")
    story.give("g-covered", -50, -10, subject="dave")
    story.give("g-covering", -50, 40, subject="dave")
    story.give(f"evil-1{EVIL}", -50, 30, subject=EVIL, reason=EVIL, entitlement=EVIL, ticket=EVIL)
    story.act(f"s{EVIL}", -40, EVIL, grant_id=f"evil-1{EVIL}")
    story.give(f"evil-2{EVIL}", -50, 30, subject=EVIL)
    story.give(AWKWARD, -50, 30, subject="erin")
    story.remove("only-removed", -40)
    story.add(story.event("session.started", -85, "s-9", session_id="s-9", grant_id="g-raced", subject="mallory"), -85)
    story.find("session_outlived_grant", "s-9", -49, session_id="s-9", session_source=IssuingSource("bot", "eu-1"))
    request = Finding("person_request", "g-policy", "critical", story.at(-20))
    for reason, taken in (("restart", -48), ("drop the table", -47)):
        story.add(story.event("request.created", -48, "r-twice", request_id="r-twice", reason=reason), taken)
    index = len([one for one in story.records if one.topic == "access.lifecycle"]) - 1
    evidence = json.dumps({"count": 3, "first_entry": index, "first_type": "request.created"})
    story.find("event_conflict", "bot/eu-1", -46, evidence=evidence)
    story.add(story.event(
        "revoke.requested", -20, "r-9", system="grantledger-operator", grant_id="g-policy", finding=request,
        actor=Actor("dana", "human"), reason="laptop stolen", outcome="pending",
        grant_source=IssuingSource("bot", "eu-1"),
    ), -20)  # fmt: skip
    for number, (kind, outcome, evidence) in enumerate([
        ("revoke.attempted", "pending", {"attempt": 1, "target": "orders-db"}),
        ("revoke.attempted", "success", {"attempt": 1, "target": "orders-db", "answer": "role removed"}),
        ("revoke.confirmed", "success", {"attempt": 1, "target": "orders-db", "observed": "no member"}),
        ("finding.resolved", "success", {"removal": "api_accepted"}),
    ]):  # fmt: skip
        about = Finding("overdue", "g-locked", "critical", story.at(-60), json.dumps(evidence))
        story.add(story.event(
            kind, -54, f"r-{number}", system="grantledger-enforcer", grant_id="g-locked", finding=about,
            outcome=outcome, grant_source=IssuingSource("bot", "eu-1"),
        ), -54)  # fmt: skip
    return story


@pytest.fixture(scope="module")
def story() -> Story:
    return told()


@pytest.fixture(scope="module")
def at_rest(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that no process has open."""
    folder = tmp_path_factory.mktemp("at-rest")
    fill(folder, story.records, cuts=(4,))
    return folder


@pytest.fixture(scope="module")
def data_dir(at_rest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same store in use, so that not every command has to start the engine."""
    folder = copied(at_rest, tmp_path_factory.mktemp("data") / "data")
    with opened_elsewhere(folder):
        yield folder


@cache
def run(data_dir: Path, *arguments: str, width: int = 0) -> tuple[int, str, str]:
    """Return exit code, output and complaints of a command, and see that nothing in them can steer a terminal.

    No store here changes once a command has read it, so the same command is run once only.

    Args:
        width: let it take its output for a terminal of so many columns that knows no colours.
    """
    arguments = (*arguments, "--data", str(data_dir))
    terminal = partial(Console, width=width, height=25, force_terminal=True, color_system=None, highlight=False)
    with patch("grantledger.cli.output.wide_console", terminal) if width else nullcontext():
        result = invoke(*arguments)
    code, out, complaint = result.exit_code, result.stdout, result.stderr
    for text in (out, complaint):
        assert not {char for char in text if unicodedata.category(char) in FORBIDDEN} - {"\n"}, ascii(text)
    assert "Traceback" not in complaint
    return code, out, complaint


def listed(data_dir: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    code, out, _ = run(data_dir, "grants", "-o", "json", *arguments)
    assert code == 0
    return {row["grant_id"]: row for row in json.loads(out)}


def line_of(text: str, word: str) -> str:
    [line] = [line for line in text.splitlines() if word in line]
    return line


def distances(story: Story, minutes: float, words: str) -> str:
    """Return a pattern of a deadline and how far away it may be said to be, by when the command ran meanwhile."""
    passed = int((datetime.now(UTC) - story.now).total_seconds()) + 1
    told = {span(abs(minutes * 60 - seconds)) for seconds in range(passed + 1)}
    return rf"{moment(story.at(minutes))}, {words.format('(' + '|'.join(sorted(told)) + ')')}"


def test_every_grant_has_its_state(story: Story, data_dir: Path) -> None:
    rows = listed(data_dir, "--all")
    states = {name: row["state"] for name, row in rows.items() if not name.startswith("evil")}
    assert states == {
        "g-late-1": "removed",
        "g-overdue": "overdue",
        "g-policy": "overdue",
        "g-raced": "overdue",
        "g-lost": "overdue",
        "g-certificate": "past its end",
        "g-locked": "ended",
        "g-soon": "active",
        "g-endless": "no deadline",
        "g-covered": "covered",
        "g-covering": "active",
        AWKWARD: "active",
    }
    assert datetime.fromisoformat(rows["g-overdue"]["deadline"]) == story.at(-125.5)
    assert set(listed(data_dir)) == set(rows) - {"g-late-1", "g-locked", "g-covered"}
    overdue = listed(data_dir, "--state", "overdue")
    assert list(overdue) == ["g-overdue", "g-lost", "g-raced", "g-policy"], "the earliest deadline comes first"
    chosen = listed(data_dir, "--state", "past-its-end", "--state", "no-deadline")
    assert set(chosen) == {"g-certificate", "g-endless"}
    policy, lost = overdue["g-policy"], overdue["g-lost"]
    assert (policy["deadline"], datetime.fromisoformat(policy["found_deadline"])) == (None, story.at(-30.5))
    assert datetime.fromisoformat(policy["found_at"]) == story.at(-29)
    assert (lost["subject_id"], lost["resource_id"], lost["activated_at"]) == ("mallory", "", None)
    assert {name: row["finding"] for name, row in rows.items() if row["finding"] != "none"} == {
        **dict.fromkeys(overdue, "open"),
        "g-locked": "resolved",
    }


def test_the_page_names_the_fields_of_the_json(data_dir: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "queries.md").read_text("utf-8")
    section = page[page.index("## In a terminal") :]
    answer = json.loads(run(data_dir, "grants", "--state", "overdue", "-o", "json")[1])
    [columns] = [line for line in section.splitlines() if line.startswith("| `grants` |")]
    assert re.findall(r"`(\w+)`", columns)[1:] == list(answer[0]) == list(_FIELDS)


def test_a_line_says_which_grants_were_left_out(data_dir: Path) -> None:
    code, _, note = run(data_dir, "grants")
    assert code == 0 and note == "Left out: 1 covered, 1 ended, 1 removed. --all or --state shows them.\n"
    _, out, note = run(data_dir, "grants", "--state", "overdue", "--subject", "trent")
    assert out == "No overdue grant on record for subject trent.\n"
    assert note == "Left out: 1 past its end. --all or --state shows them.\n"
    assert run(data_dir, "grants", "--all")[2] == run(data_dir, "grants", "--subject", "mallory")[2] == ""
    assert run(data_dir, "grants", "--state", "overdue", "-q")[1:] == ("g-overdue\ng-lost\ng-raced\ng-policy\n", "")


def test_a_filter_by_environment_says_how_many_grants_have_none(data_dir: Path) -> None:
    code, _, note = run(data_dir, "grants", "--environment", "production")
    assert code == 0 and note.endswith(
        "1 more without an environment; the watch policy can map them: `[[environment]]`, docs/watch.md#policy\n"
    )
    assert "g-lost" not in listed(data_dir, "--environment", "production")
    assert "without an environment" not in run(data_dir, "grants")[2]


def test_grants_are_filtered_and_cut(data_dir: Path) -> None:
    assert set(listed(data_dir, "--all", "--subject", "DAVE")) == {"g-covered", "g-covering"}
    assert set(listed(data_dir, "--all", "--subject", "alice", "--resource", "ord")) == {"g-late-1"}
    assert listed(data_dir, "--resource", "billing") == listed(data_dir, "--subject", "' OR ''='") == {}
    assert list(listed(data_dir, "--limit", "2")) == ["g-overdue", "g-lost"]
    assert "2 of 11: --limit shows more" in run(data_dir, "grants", "--limit", "2")[2]
    assert "more" not in run(data_dir, "grants", "--limit", "11")[2]


def test_the_table_shows_the_distance_of_a_deadline(story: Story, data_dir: Path) -> None:
    code, out, _ = run(data_dir, "grants", "--all")
    assert code == 0
    overdue = line_of(out, "g-overdue")
    assert re.search(distances(story, -125.5, "{} late"), overdue) and "overdue, api_accepted" in overdue
    assert "mallory" in overdue and "database orders" in overdue and moment(story.at(-200)) in overdue
    assert "database orders (production)" in line_of(run(data_dir, "grants", "--state", "overdue")[1], "g-overdue")
    assert re.search(distances(story, 52.5, "in {}"), line_of(out, "g-soon"))
    assert re.search(distances(story, -10, "{} ago"), line_of(out, "g-covered "))
    assert "none given" in line_of(out, "g-endless")
    assert re.search(distances(story, -30.5, "{} late"), line_of(out, "g-policy"))
    assert re.search(distances(story, -90.5, "{} late"), line_of(out, "g-lost"))
    past = line_of(out, "g-locked")
    assert re.search(distances(story, -60, "{} ago"), past) and "ended, api_accepted" in past
    assert f"{moment(story.at(-60))}, removed 10 min late" in line_of(out, "g-late-1")


def test_a_very_narrow_terminal_has_no_cell_cut_to_pieces(story: Story, data_dir: Path) -> None:
    _, out, _ = run(data_dir, "grants", "--state", "overdue", "--subject", "mallory", width=50)
    lines = out.splitlines()
    assert lines[:3] == [
        "g-overdue  overdue, api_accepted",
        "  mallory: database orders (production), rw",
        f"  granted {moment(story.at(-200))}",
    ]
    assert re.fullmatch("  deadline " + distances(story, -125.5, "{} late"), lines[3])
    assert lines[4:6] == ["g-lost  overdue", "  mallory"], "what nobody knows is left out"
    assert re.fullmatch("  deadline " + distances(story, -90.5, "{} late"), lines[6])
    assert len(lines) == 15
    run(data_dir, "grants", width=50)  # looks for control characters


@pytest.mark.parametrize("width", [80, 100])
def test_on_a_narrow_terminal_cells_are_shortened_and_nothing_wraps(data_dir: Path, width: int) -> None:
    _, out, _ = run(data_dir, "grants", width=width)
    lines = out.splitlines()
    assert len(lines) == 1 + len(listed(data_dir))
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["grant", "who", "access", "deadline", "state"]
    assert re.match(r"g-overdue +mallory +orders, rw +2 h \d+ min late +overdue", line_of(out, "g-overdue"))
    _, wide, _ = run(data_dir, "grants", "-o", "wide", width=width)
    assert "database orders (production)" in line_of(wide, "g-overdue") and "…" not in wide
    assert len([line for line in wide.splitlines() if "│" in line]) == len(lines) - 1


def test_a_shortened_id_is_accepted(data_dir: Path) -> None:
    code, out, _ = run(data_dir, "grants", "show", "g-ov…due", "-q")
    assert (code, out) == (0, "g-overdue\n")
    assert run(data_dir, "grants", "show", "g-ov…x", "-q")[0] == 1
    code, _, complaint = run(data_dir, "grants", "show", "g-…d", "-q")
    assert code == 1 and "g-raced" in complaint and "g-covered" in complaint


@pytest.mark.parametrize("width", [10, 11, 20])
def test_texts_are_shortened_in_the_middle(width: int) -> None:
    text = "database/creds/orders-readonly/1acead90d0cd414db7e1f9e3"
    short = shrunk(text, width)
    head, _, tail = short.partition("…")
    assert len(short) == width and text.startswith(head) and text.endswith(tail)
    assert shrunk("short", width) == "short"
    assert cell_len(shrunk("日本語のテキストです" * 3, width)) in (width - 1, width)


def test_findings_are_listed_and_shown(story: Story, data_dir: Path) -> None:
    code, out, _ = run(data_dir, "findings", "-o", "json")
    found = {row["grant_id"] or row["rule"]: row for row in json.loads(out)}
    others = {"session_outlived_grant", "event_conflict"}
    assert code == 0 and set(found) == {"g-overdue", "g-policy", "g-raced", "g-lost"} | others
    assert all(set(_FINDING_FIELDS) <= set(row) for row in found.values())
    for row in found.values():
        due = datetime.fromisoformat(row["deadline"]) if row["deadline"] else None
        issuer = (row["issuer_system"], row["issuer_instance"])
        assert row["id"] == finding_id(row["rule"], row["key"], due, row["tenant"], issuer), (
            "an alert names the same id"
        )
    ids = run(data_dir, "findings", "-q")[1].split()
    assert sorted(ids) == sorted(row["id"] for row in found.values())
    assert len(run(data_dir, "findings", "--severity", "critical", "-q")[1].split()) == 3
    assert len(run(data_dir, "findings", "--all", "-q")[1].split()) == 7
    assert run(data_dir, "findings", "--rule", "no_deadline")[1] == "No open findings.\n"
    assert "overdue" in line_of(run(data_dir, "findings")[1], "g-policy")
    lost = found["g-overdue"]["id"]
    code, out, _ = run(data_dir, "findings", "show", lost[:6])
    assert code == 0 and f"finding {lost}: overdue" in out and "What to do: Run `grantledger grants show" in out
    assert f"  deadline {moment(story.at(-125.5))} UTC" in out
    assert line_of(out, "  next     ") == "  next     grantledger grants show g-overdue --source bot/eu-1"
    code, _, complaint = run(data_dir, "findings", "show", "zzz")
    assert code == 1 and "no finding has the id 'zzz'" in complaint
    code, _, complaint = run(data_dir, "findings", "close", lost, "--reason", "x", "--accept", "3")
    assert code == 2 and "--accept decides an event_conflict" in complaint
    [ended] = [row["id"] for row in json.loads(run(data_dir, "findings", "--all", "-o", "json")[1]) if not row["open"]]
    for command in ("ack", "close"):
        code, out, complaint = run(data_dir, "findings", command, ended, "--reason", "x")
        assert (code, out) == (2, "") and f"{ended} is not open; `grantledger findings show" in complaint


def test_the_versions_of_a_conflicting_event_are_listed_and_only_one_of_them_is_accepted(data_dir: Path) -> None:
    [number] = run(data_dir, "findings", "--rule", "event_conflict", "-q")[1].split()
    code, out, _ = run(data_dir, "findings", "show", number, "-o", "json")
    first, second = json.loads(out)["versions"]
    assert code == 0 and (first["differs"], second["differs"]) == ({"reason": "restart"}, {"reason": "drop the table"})
    assert second["index"] == first["index"] + 1 and first["event_id"] == second["event_id"]
    shown = run(data_dir, "findings", "show", number)[1]
    for version, reason in ((first, "restart"), (second, "drop the table")):
        assert f"#{version['index']} " in line_of(shown, f"reason {reason}")
    assert "This is the first of 3 conflicts of this source in this hour." in shown
    code, out, complaint = run(data_dir, "findings", "close", number, "--reason", "x", "--accept", "0")
    assert (code, out) == (2, "") and "entry #0 is not a version of an event that was sent twice" in complaint


def test_an_empty_result_is_stated(data_dir: Path) -> None:
    code, out, _ = run(data_dir, "grants", "--state", "overdue", "--subject", "nobody\x1b[2J", "--resource", "x")
    assert (code, out) == (0, "No overdue grant on record for subject nobody\\x1b[2J and resource x.\n")


def test_options_that_contradict_each_other_are_refused(data_dir: Path) -> None:
    code, out, complaint = run(data_dir, "grants", "--all", "--state", "overdue")
    assert (code, out) == (2, "") and "give --state or --all, not both" in complaint


def test_the_history_of_a_grant_is_in_order(story: Story, data_dir: Path) -> None:
    code, out, _ = run(data_dir, "grants", "show", "g-late-1")
    assert code == 0
    words = [
        "request.created", "INC-4711: stuck migration", "request.approved", "bob@example.com approved",
        "grant.activated", f"until {moment(story.at(-90))}", "session.started", "5 commands in session s-1",
        "psql -c 0; psql -c 1; psql -c 2 … 2 more", "grant.extended", f"until {moment(story.at(-60))}",
        "evidence: api_accepted", "evidence: confirmed; removed 10 min late", "Proof:",
    ]  # fmt: skip
    body = out[out.index("when (UTC)") :]
    places = [body.find(word) for word in words]
    assert -1 not in places and places == sorted(places), dict(zip(words, places, strict=True))
    assert f"removed {moment(story.at(-50))}, confirmed" in out
    assert moment(story.at(-128)) in line_of(out, "request.approved")
    accepted = line_of(out, "api_accepted")
    assert "#5, again #6" in accepted, "a record that was read twice is told once, with both places"


def test_wide_shortens_nothing_of_a_grant(data_dir: Path) -> None:
    _, wide, _ = run(data_dir, "grants", "show", "g-late-1", "-o", "wide", width=60)
    assert "…" not in wide and "5 commands in session s-1:" in line_of(wide, "commands in session")
    commands = [line.strip() for line in wide.splitlines() if "psql" in line]
    assert commands == [f"psql -c {number}" for number in range(5)]
    assert "access.lifecycle/0/0 #0" in line_of(wide, "request.created")


def test_the_proof_names_the_checkpoints_and_claims_no_verification(data_dir: Path) -> None:
    _, out, _ = run(data_dir, "grants", "show", "g-late-1")
    lifecycle = line_of(out, f"{DEPLOYMENT}/access.lifecycle/0/0")
    assert "8 entries up to #7, covered by the signed checkpoint of size 8" in lifecycle
    activity = line_of(out, f"{DEPLOYMENT}/access.activity/0/0")
    assert "5 entries up to #4, covered by the signed checkpoint of size 6" in activity
    assert "Nothing of this has been verified: run `grantledger verify`." in out
    assert "SOUND" not in out


def test_an_entry_without_a_checkpoint_is_not_called_covered(at_rest: Path, tmp_path: Path) -> None:
    folder = copied(at_rest, tmp_path / "data")
    with connect(StoreAddress(folder / "clickhouse")) as client:
        client.command("ALTER TABLE entries UPDATE note = '' WHERE 1", settings={"mutations_sync": 2})
    _, out, _ = run(folder, "grants", "show", "g-soon")
    assert "NO signed checkpoint in the store covers" in line_of(out, "access.lifecycle/0/0:")
    assert json.loads(run(folder, "grants", "show", "g-soon", "-o", "json")[1])["proof"][0]["checkpoint_size"] is None


def test_the_same_as_json(story: Story, data_dir: Path) -> None:
    code, out, _ = run(data_dir, "grants", "show", "g-late", "-o", "json")
    answer = json.loads(out)
    assert (code, answer["grant_id"], answer["verified"], answer["events_cut"]) == (0, "g-late-1", False, False)
    assert (answer["grant"]["state"], answer["grant"]["late_seconds"]) == ("removed", 600.0)
    kinds = [event["event_type"] for event in answer["events"]]
    assert kinds == ["request.created", "request.approved", "grant.activated", "session.started", "grant.extended",
                     "grant.revoked", "grant.revoked"]  # fmt: skip
    assert [len(event["again"]) for event in answer["events"]] == [0, 0, 0, 0, 0, 1, 0]
    assert answer["events"][1]["approvals"][0]["reviewer"] == "bob@example.com"
    [session] = answer["sessions"]
    assert (session["session_id"], session["commands"], len(session["first"])) == ("s-1", 5, 3)
    sizes = {proof["origin"].split("/")[1]: proof["checkpoint_size"] for proof in answer["proof"]}
    assert sizes == {"access.lifecycle": 8, "access.activity": 6}


def test_the_state_of_an_open_grant(story: Story, data_dir: Path) -> None:
    overdue = run(data_dir, "grants", "show", "g-overdue")[1]
    opened = line_of(overdue, "finding.opened")
    assert f"overdue: {FINDING_RULES['overdue'].summary}" in opened and "outcome" not in opened
    assert f"overdue, found {moment(story.at(-124))}; best evidence of a removal: api_accepted" in overdue
    assert "evidence: confirmed, but with the outcome unknown: counts as api_accepted" in overdue
    assert re.search("deadline " + distances(story, -125.5, "{} late"), overdue)
    raced = line_of(run(data_dir, "grants", "show", "g-raced")[1], "state")
    assert "the finding is not resolved yet; removed" in raced
    lost = run(data_dir, "grants", "show", "g-lost")[1]
    assert "no activation on record" in lost and "overdue, found" in lost and "mallory" in lost
    certificate = line_of(run(data_dir, "grants", "show", "g-certificate")[1], "state")
    assert "past its end, not judged: no watch policy is on record, so no watch has run; no removal" in certificate
    shown = run(data_dir, "grants", "show", "g-locked")[1]
    for text in ("attempt 1 at the target orders-db begins", "orders-db was accepted: role removed",
                 "the access is gone after attempt 1, as read back at the target orders-db: no member",
                 "overdue is resolved: a removal is on record (api_accepted)"):  # fmt: skip
        assert text in shown
    assert shown.count(FINDING_RULES["overdue"].summary) == 1, "of finding.opened only"
    locked = line_of(shown, "state")
    assert "ended under the policy, without a confirmed removal; best evidence" in locked
    assert "another open grant covers the same access" in run(data_dir, "grants", "show", "g-covered")[1]
    assert "open, without a deadline; no removal on record" in run(data_dir, "grants", "show", "g-endless")[1]
    found = run(data_dir, "findings", "--rule", "overdue", "-o", "json")[1]
    [number] = [row["id"] for row in json.loads(found) if row["grant_id"] == "g-overdue"]
    since = f"open since {moment(story.at(-124))}"
    assert line_of(overdue, "finding  ") == f"  finding  overdue (critical, {number}): {since}"
    command = "grantledger grants revoke g-overdue --source bot/eu-1 --reason '…'"
    assert line_of(overdue, "next  ").endswith(f"To have it revoked: {command}")
    code, out, _ = run(data_dir, "grants", "show", "only-removed")
    assert code == 0 and "no activation on record" in out and "evidence: confirmed" in out


def test_the_findings_of_its_sessions_and_the_requested_revocations_are_shown(story: Story, data_dir: Path) -> None:
    raced = run(data_dir, "grants", "show", "g-raced")[1]
    first, second = (line for line in raced.splitlines() if line.startswith("  finding  "))
    assert "overdue (critical, " in first and "session_outlived_grant (warning, " in second, "by rule"
    assert ", session s-9): open since" in second
    policy = run(data_dir, "grants", "show", "g-policy")[1]
    asked_at = moment(story.at(-20))
    text = f"asked for by dana (laptop stolen) at {asked_at}: no enforcer has attempted it"
    assert line_of(policy, "  revoke   ") == f"  revoke   {text}"
    assert line_of(policy, "  next     ") == (
        "  next     no enforcer acts: check in the tool whether the access exists, and end it there"
    )
    code, out, complaint = run(data_dir, "grants", "revoke", "g-policy", "--reason", "x")
    assert (code, out, complaint) == (1, "", f"grantledger: grant g-policy: {text}\n")


def test_only_a_whole_id_of_a_grant_that_is_not_removed_is_revoked(story: Story, data_dir: Path) -> None:
    code, out, complaint = run(data_dir, "grants", "revoke", "g-end", "--reason", "x")
    assert (code, out) == (1, "") and "1 grant id begins with 'g-end'; give the whole id:" in complaint
    assert "  g-endless  carol, orders  --source bot/eu-1\n" in complaint
    _, _, complaint = run(data_dir, "grants", "revoke", "g-late-1", "--reason", "x")
    assert f"grant g-late-1 is removed already, at {moment(story.at(-50))} UTC" in complaint
    code, _, complaint = run(data_dir, "grants", "revoke", "only-removed", "--reason", "x")
    assert code == 1 and "has no activation on record" in complaint
    code, _, complaint = run(data_dir, "grants", "revoke", "g-soon", "--reason", " ")
    assert code == 2 and "--reason must not be empty" in complaint


def test_an_ambiguous_beginning_lists_the_candidates(data_dir: Path) -> None:
    code, out, complaint = run(data_dir, "grants", "show", "g-cover")
    assert (code, out) == (1, "") and "2 grant ids begin with" in complaint
    assert "g-covered  dave, orders" in complaint and "g-covering  dave, orders" in complaint
    code, _, complaint = run(data_dir, "grants", "show", "evil")
    assert code == 1 and "evil-2\\x1b]0;pwned" in complaint


@pytest.mark.parametrize("grant", ["nothing-like-it", "' OR 1=1 --", "G-LATE-1", "%", f"x{EVIL}"])
def test_an_unknown_grant_is_reported(grant: str, data_dir: Path) -> None:
    code, out, complaint = run(data_dir, "grants", "show", grant)
    assert (code, out) == (1, "")
    assert "no grant id begins with" in complaint and "grantledger grants list --all" in complaint


def test_awkward_ids_are_bound_not_pasted(data_dir: Path) -> None:
    for beginning in (AWKWARD, "lease/a'b\\c\t", "lease/a'"):
        answer = json.loads(run(data_dir, "grants", "show", beginning, "-o", "json")[1])
        assert answer["grant_id"] == AWKWARD and len(answer["events"]) == 1


def test_text_of_senders_cannot_control_the_terminal(data_dir: Path) -> None:
    _, out, _ = run(data_dir, "grants")  # run() looks for control characters
    assert "\\x1b]0;pwned\\x07" in out.replace("│", "").replace(" ", "").replace("\n", "")
    _, out, _ = run(data_dir, "grants", "show", "evil-1")
    for word in (r"\x1b]0;pwned\x07", r"\r\n", r"\u202e", r"\x9b31m", "[red]bold[/red]"):
        assert word in out


def test_there_is_no_store_yet(tmp_path: Path) -> None:
    for arguments in (("grants",), ("grants", "show", "x"), ("findings",)):
        code, _, complaint = run(tmp_path, *arguments)
        assert code == 2 and "there is no store" in complaint


def test_a_store_at_rest_answers_the_same(at_rest: Path, data_dir: Path) -> None:
    for arguments in (
        ("grants", "show", "g-late-1"),
        ("grants", "show", "evil-1", "-o", "json"),
        ("grants", "--all", "-o", "json"),
    ):
        code, out, note = run(at_rest, *arguments)
        assert (code, out) == run(data_dir, *arguments)[:2]
        stopped = f"Nothing runs in {at_rest}: this is as of the last stored entry, "
        assert re.fullmatch(r"[-0-9]+ [:0-9]+ UTC\.", line_of(note, "Nothing runs").removeprefix(stopped))
        assert "Nothing runs" not in run(data_dir, *arguments)[2]


def test_an_auditors_file_has_every_grant(data_dir: Path) -> None:
    rows = listed(data_dir, "--all")
    review = asked(data_dir, "SELECT * FROM access_review WHERE activated_at < now() AND "
                   "(removed_at IS NULL OR removed_at >= now() - 7200) FORMAT CSVWithNames")  # fmt: skip
    found = {row["grant_id"]: row for row in csv.DictReader(io.StringIO(review, newline=""))}
    assert set(found) == set(rows) - {"g-lost"}, "an auditor's file lacks a grant"
    assert found["g-late-1"]["late_seconds"] == "600" and found["g-late-1"]["commands"] == "5"
    assert found["g-overdue"]["removed_at"] == "\\N" and found[AWKWARD]["subject_id"] == "erin"


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "SELECT grant_id FROM grants"),
        ("grants", "list"),
        ("grants", "show", "g-late-1"),
        ("findings", "list"),
    ],
)
def test_commands_that_ask_a_running_stack_import_neither_engine_nor_arrow(
    data_dir: Path, arguments: tuple[str, ...]
) -> None:
    program = (
        "import sys; from grantledger.cli.app import app\n"
        "try: app(sys.argv[1:], prog_name='grantledger')\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *arguments, "--data", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout
    imported = set(done.stderr.splitlines()[-1].split())
    assert not imported & {"chdb", "clickhouse_connect", "numpy", "pandas", "pyarrow"}


def test_open_findings_are_counted_through_the_owner_of_the_store(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="no process has"), ask_store(load_settings(tmp_path), shared=True):
        pass
    counted = OpenFindings(load_settings(data_dir))
    try:
        assert wait_for(lambda: counted.count, "the findings are counted") == (6, 3)
    finally:
        counted.stop()


def asked(data_dir: Path, sql: str) -> str:
    """Return what the SQL endpoint answers, as curl has it."""
    access = read_address(data_dir)
    assert access is not None
    credential = access.reader
    headers = {"X-ClickHouse-User": credential.user, "X-ClickHouse-Key": credential.password}
    url = f"http://{access.host}:{access.port}/?database=audit"
    with urllib.request.urlopen(urllib.request.Request(url, sql.encode(), headers), timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def test_an_older_store_is_reported_with_advice(story: Story, tmp_path: Path) -> None:
    folder = fill(tmp_path, story.records[:3])
    with connect(StoreAddress(folder)) as client:
        client.command("DROP VIEW grants")
    for arguments in (("grants",), ("grants", "show", "g-late-1")):
        code, _, complaint = run(tmp_path, *arguments)
        assert code == 2 and "an earlier version" in complaint


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (7500, "2 h 5 min"),
     (86_399, "23 h 59 min"), (86_400, "1 d"), (90_000, "1 d 1 h"), (864_000 + 59, "10 d")],
)  # fmt: skip
def test_durations_as_text(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_times_are_utc() -> None:
    elsewhere = datetime(2026, 3, 1, 1, 30, tzinfo=UTC).astimezone(tz=None) + timedelta(0)
    assert moment(elsewhere) == "2026-03-01 01:30:00"


def test_only_printable_characters_are_printed() -> None:
    for code in range(0x110000):
        shown = printable(chr(code))
        assert shown.isprintable(), hex(code)
    assert printable("é 漢字 ok") == "é 漢字 ok"
    assert printable("a\tb\x00\x7f\x85\u2028\U000e0001") == r"a\tb\x00\x7f\x85\u2028\U000e0001"
    assert shortened("abcdef", 4) == "abc…" and shortened("abcd", 4) == "abcd"


def test_a_deadline_in_the_year_9999_is_shown_exactly(tmp_path: Path) -> None:
    story = Story()
    last = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
    given = story.event("grant.activated", -5, "n", grant_id="g-9999", expires_at=last, expiry_source="native")
    story.add(given, -5)
    fill(tmp_path, story.records)
    row = listed(tmp_path)["g-9999"]
    assert (row["state"], row["expires_at"], row["deadline"]) == ("active", *["9999-12-31T23:59:59.999999+00:00"] * 2)
    code, out, _ = run(tmp_path, "grants", "show", "g-9999")
    assert code == 0 and "9999-12-31 23:59:59" in out


def test_a_finding_about_late_records_shows_the_numbers_of_now(tmp_path: Path) -> None:
    story = Story()
    for name in ("gone", "weak", "open"):
        story.give(name, -100, -500, seen=-510, system="archive")
    story.give("of-another-source", -100, -500, seen=-510)
    story.find("late_records", "archive/eu-1#import", -99, deadline=-100, severity="info")
    story.remove("gone", -98, seen=-505, system="archive")
    story.remove("weak", -98, "api_accepted", seen=-505, system="archive")
    fill(tmp_path, story.records)
    [found] = run(tmp_path, "findings", "--rule", "late_records", "-q")[1].split()
    code, out, _ = run(tmp_path, "findings", "show", found)
    assert code == 0 and line_of(out, "  now") == (
        "  now      3 historical grants of this source, of all days: 2 unresolved, 1 of them without any removal"
    )
