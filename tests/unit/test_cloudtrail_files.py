"""Log files as CloudTrail writes them to S3."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from grantledger.producers.adapters import Skipped, make_adapter
from grantledger.producers.importer import Importer, ImportReport
from grantledger.producers.input_files import InputFile
from grantledger.schemas.event import Event
from support.adapters import Result
from support.cloudtrail import (
    TAKEN,
    read_samples,
    record,
)


@pytest.fixture(scope="module")
def results(samples: Path) -> list[tuple[dict[str, Any], Result]]:
    return read_samples(samples)


def feed(path: Path, **more: Any) -> tuple[ImportReport, list[Event]]:
    sent: list[Event] = []
    importer = Importer(make_adapter("cloudtrail"), sent.append, **more)
    with InputFile(str(path)) as source:
        importer.run(source)
    return importer.report, sent


def calls(count: int) -> list[dict[str, Any]]:
    return [record("ec2", "RunInstances", userIdentity=TAKEN, eventID=f"e{number}") for number in range(count)]


class TestFiles:
    def test_every_shape_gives_the_same_events(self, tmp_path: Path) -> None:
        records = calls(5)
        lines = b"".join(json.dumps(found).encode() + b"\n" for found in records)
        whole = json.dumps({"Records": records}).encode()
        shapes = {
            "lines": lines,
            "whole": whole,
            "gzip": gzip.compress(whole),
            "pretty": json.dumps({"Records": records}, indent=2).encode(),
            "joined": b"".join(json.dumps({"Records": [found]}).encode() for found in records),
            "joined_lines": b"".join(b"\n" + json.dumps({"Records": [found]}).encode() for found in records),
            "more_members": b'{"Records":' + json.dumps(records).encode() + b',"x":[{}]}\n',
        }
        ids = {}
        for name, content in shapes.items():
            path = tmp_path / name
            path.write_bytes(content)
            report, sent = feed(path)
            blank = 1 if name == "joined_lines" else 0
            assert (report.mapped, report.failed, report.records) == (5, 0, 5 + blank), name
            assert report.skipped == ({"blank_line": blank} if blank else {})
            ids[name] = [event.event_id for event in sent]
        assert all(found == ids["lines"] for found in ids.values())

    def test_a_record_keeps_its_own_bytes(self, tmp_path: Path) -> None:
        records = [json.dumps(found).encode() for found in calls(3)]
        (tmp_path / "a").write_bytes(b'{"Records": [' + b" ,\n".join(records) + b"]}")
        _, sent = feed(tmp_path / "a")
        assert [event.raw for event in sent] == records

    def test_a_bad_record_is_reported_and_the_others_are_read(self, tmp_path: Path) -> None:
        records: list[Any] = calls(3)
        records[1]["eventTime"] = "yesterday"
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"Records": records}))
        rejected: list[bytes] = []
        report, _ = feed(path, reject=rejected.append)
        assert (report.mapped, report.failed) == (2, 1)
        assert str(report.failures[0].location) == f"{path}:1 (record 2)"
        assert report.failures[0].problem == "eventTime: 'yesterday' is not an RFC 3339 time"
        assert b"".join(rejected) == json.dumps(records[1]).encode() + b"\n"

    def test_lines_are_counted_within_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text('\n{"Records": [\n{"eventName": 1},\n\n{"eventName": 2, "x": 1}\n]}')
        report, _ = feed(path)
        assert [str(failure.location) for failure in report.failures] == [
            f"{path}:3 (record 1)",
            f"{path}:5 (record 2)",
        ]

    def test_a_record_that_is_too_long_is_skipped(self, tmp_path: Path) -> None:
        records = calls(3)
        records[1]["requestParameters"] = {"padding": '\\"]}' * 100_000}
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"Records": records}))
        rejected: list[bytes] = []
        report, _ = feed(path, reject=rejected.append, max_record_bytes=2000)
        assert (report.mapped, report.failed) == (2, 1)
        assert report.failures[0].problem == "longer than 2000 bytes"
        assert b"".join(rejected) == json.dumps(records[1]).encode() + b"\n"

    @pytest.mark.parametrize(
        ("end", "problem", "number"),
        [
            (b"", "the file ends inside Records; the rest of the file was not read", 2),
            (b',{"eventName": "x', "the file ends inside Records; the rest of the file was not read", 2),
            (b" 7]}", "not JSON: expected a comma or ]; the rest of the file was not read", 2),
            (b",7]} x", "not JSON: expected a record; the rest of the file was not read", 2),
            (b",7]}", "must be a JSON object, is a number", 2),
            (b"]} rubbish", "not JSON: Expecting value at character 1", None),
        ],
    )
    def test_a_damaged_file_fails_after_its_readable_records(
        self, tmp_path: Path, end: bytes, problem: str, number: int | None
    ) -> None:
        path = tmp_path / "a.json"
        path.write_bytes(b'{"Records":[' + json.dumps(calls(1)[0]).encode() + end)
        report, sent = feed(path)
        assert (len(sent), report.failed, report.records) == (1, 1, 2)
        assert report.failures[0].problem == problem
        assert report.failures[0].location.record == number

    @pytest.mark.parametrize("content", [b"", b"\n\n", b"{", b'{"Rec', b'{"records": []}', b"\xff"])
    def test_other_files_are_read_by_line(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a"
        path.write_bytes(content)
        report, sent = feed(path)
        assert not sent
        assert report.records == len(content.removesuffix(b"\n").split(b"\n") if content else [])
        assert all(failure.location.record is None for failure in report.failures)

    @pytest.mark.parametrize(("content", "records"), [(b"[]", 0), (b"[\n]\n", 0), (b"{\n}\n", 1), (b"[7]", 1)])
    def test_json_may_span_lines(self, tmp_path: Path, content: bytes, records: int) -> None:
        path = tmp_path / "a"
        path.write_bytes(content)
        report, _ = feed(path)
        assert (report.failed, report.records) == (records, records)

    def test_leading_blank_lines_are_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"\n\r\n" + json.dumps(calls(1)[0]).encode() + b"\nbad")
        report, sent = feed(path)
        assert (len(sent), report.skipped["blank_line"]) == (1, 2)
        assert [str(failure.location) for failure in report.failures] == [f"{path}:4"]

    def test_an_empty_list_has_no_records(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b'{"Records":[]}')
        report, _ = feed(path)
        assert report.records == 0

    def test_the_real_records_in_one_file_have_the_same_results(
        self, tmp_path: Path, samples: Path, results: list[tuple[dict[str, Any], Result]]
    ) -> None:
        lines = (samples / "aws_cloudtrail" / "cloudtrail.jsonl").read_bytes().splitlines()
        path = tmp_path / "whole.json.gz"
        path.write_bytes(gzip.compress(b'{"Records":[' + b",".join(lines) + b"]}", 1))
        report, sent = feed(path)
        by_line = [outcome for _, outcome in results]
        skipped = Counter(outcome.reason for outcome in by_line if isinstance(outcome, Skipped))
        assert (report.mapped, report.skipped, report.failed) == (763, skipped, 0)
        mapped = (outcome for outcome in by_line if not isinstance(outcome, Skipped))
        assert [event.event_id for event in sent] == [event.event_id for events in mapped for event in events]
