"""``grantledger check-mapping``: checks a mapping file, and shows what it makes of records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..base.text import printable
from ..producers.adapters import Fields, Location, RecordError
from ..producers.adapters.mapping.adapter import MappingAdapter, load_mapping
from ..producers.adapters.mapping.file import MappingFile
from ..producers.event_json import event_to_json
from ..producers.importer import Importer, ImportReport
from ..producers.input_files import InputFile, inputs
from ..runtime.settings import Settings
from ..schemas.event import Event
from .output import Column, Output, Row, print_table, text_column
from .redaction_option import redactor
from .sending import SOME_REFUSED

_COLUMNS = [
    Column("record", lambda row: row["place"].rpartition("/")[2], whole=True),
    text_column("rule", "rule"),
    text_column("becomes", "becomes"),
    text_column("subject", "subject"),
    text_column("resource", "resource"),
    text_column("entitlement", "entitlement"),
    Column("ids", lambda row: row["ids"], shrinks="middle"),
    text_column("ends", "ends"),
    text_column("outcome", "outcome"),
]


def command(
    settings: Settings,
    output: Output,
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="The mapping file.")],
    records: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECORDS", help="Files with records, as for import."),
    ] = None,
    instance: Annotated[str | None, typer.Option(help="Name of the installation of the tool.")] = None,
) -> None:
    """Check a mapping file, and show what becomes of records. Nothing is sent.

    Each mistake in the file is named with its line. Each record of RECORDS is shown with the rule that applied: the
    events it becomes, why it is skipped, or why it failed.

    Exit codes: 0 the file is valid, and every record is mapped or skipped; 1 some records failed; 2 FILE is
    wrong, or a file cannot be read.
    """
    adapter = load_mapping(file)(instance=instance)
    adapter.redactor = redactor(settings, None, None)
    mapping = adapter.MAPPING
    rows: list[dict[str, Any]] = []
    for source in inputs(records or []):
        with source:
            rows += _read(adapter, source)
    counts = Counter(str(row["becomes"]) for row in rows)
    failed = sum(row["result"] == "failed" for row in rows)
    without_value = _without_value(mapping, [row for row in rows if row["result"] == "mapped"])

    def show(console: Console) -> None:
        console.print(
            printable(f"{file}: valid: {mapping.system}, version {mapping.version}, {len(mapping.rule)} rules"),
            markup=False,
        )
        if rows:
            print_table(console, rows, _COLUMNS)
            for becomes, count in counts.most_common():
                console.print(printable(f"{count:6,} {becomes}"), markup=False)
        if without_value:
            names = ", ".join(without_value)
            console.print(
                f"Without a value in all these records; is the path right? {names}", markup=False, soft_wrap=True
            )

    result = {"file": str(file), "valid": True, "system": mapping.system, "version": mapping.version, "records": rows}
    result |= {"without_value": without_value}
    output.record(result, show)
    raise typer.Exit(SOME_REFUSED if failed else 0)


def _read(adapter: MappingAdapter, source: InputFile) -> Iterator[dict[str, Any]]:
    events: list[Event] = []
    importer = Importer(adapter, events.append)
    for record in source.records(importer.envelopes):
        importer.report, report = ImportReport(), importer.report
        del events[:]
        importer.take(record)
        report = importer.report
        place = str(record.location)
        rule = _rule(adapter, record.values, record.location) if record.values is not None else ""
        for event in events:
            yield {"place": place, "result": "mapped", "rule": rule, **_shown(event)}
        for reason in report.skipped:
            becomes = f"skipped: {reason}: {adapter.SKIP_REASONS[reason]}"
            yield {"place": place, "result": "skipped", "rule": rule, **_EMPTY, "becomes": becomes}
        for failure in report.failures:
            yield {"place": place, "result": "failed", "rule": rule, **_EMPTY, "becomes": f"failed: {failure.problem}"}
        for _, tool in report.of_other_tools:
            becomes = f"failed: it is a record of {tool}"
            yield {"place": place, "result": "failed", "rule": rule, **_EMPTY, "becomes": becomes}


def _without_value(mapping: MappingFile, mapped: list[dict[str, Any]]) -> list[str]:
    """Return the fields that have a path and no value in any event of the rules that give them."""
    given: dict[str, bool] = {}
    for row in mapped:
        number, _, more = str(row["rule"]).partition(",")
        if more:  # several rules made events of this record, and it is not known which one made this
            continue
        rule = mapping.rule[int(number.partition(" ")[0]) - 1]
        for name, value in (dict(mapping.fields.flat()) | dict(rule.fields.flat())).items():
            if getattr(value, "path", None) is not None and name not in _COMPUTED:
                given[name] = given.get(name, False) or _value_at(row["event"], name) not in (None, "", "unknown")
    return [name for name, has_value in given.items() if not has_value]


def _value_at(event: Any, name: str) -> Any:
    for part in f"source.{name}".split(".") if name in _OF_SOURCE else name.split("."):
        event = event.get(part) if isinstance(event, dict) else None
    return event


_OF_SOURCE = ("native_id", "native_type", "instance")
_COMPUTED = ("expires_after_seconds",)
_EMPTY = dict.fromkeys(("subject", "resource", "entitlement", "ids", "ends", "outcome"), "")


def _rule(adapter: MappingAdapter, values: dict[str, Any], location: Location) -> str:
    try:
        found = adapter.matching(Fields(values, location))
    except RecordError:
        return ""
    return ", ".join(f"{number} {rule.name}".strip() for number, rule in found)


def _shown(event: Event) -> Row:
    ids = [getattr(event, name) for name in ("grant_id", "request_id", "session_id")]
    return {
        "becomes": event.event_type,
        "subject": event.subject.id,
        "resource": f"{event.resource.kind} {event.resource.id}" if event.resource else "",
        "entitlement": event.entitlement or "",
        "ids": " ".join(one for one in ids if one),
        "ends": event.expires_at.isoformat() if event.expires_at else "",
        "outcome": event.outcome,
        "event": event_to_json(replace(event, raw=None)),
    }
