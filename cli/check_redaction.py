"""``grantledger check-redaction``: checks a file with rules, and shows what redaction removes from texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console

from ..base.text import printable
from ..producers.adapters import Fields, RecordError, make_adapter
from ..producers.importer import MAX_RECORD_BYTES, Importer
from ..producers.input_files import inputs
from ..producers.json_fields import parse_object
from ..producers.redaction.marks import MARK_START, rules_in
from ..producers.redaction.redactor import Known, Redactor
from ..runtime.settings import Settings
from ..schemas.event import Event
from .output import Column, Output, print_table, text_column
from .redaction_option import RedactionOption, RedactionRulesOption, redactor

_COLUMNS = [text_column("rule", "rule"), text_column("level", "level"), Column("removes", lambda row: row["removes"])]


def command(
    settings: Settings,
    output: Output,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files with one text or record per line; - is standard input."),
    ] = None,
    *,
    tool: Annotated[
        str | None, typer.Option("--tool", help="Read the files as records of this tool, as `import` does.")
    ] = None,
    sql: Annotated[
        bool, typer.Option("--sql", help="Read each line that is no JSON object as an SQL statement.")
    ] = False,
    redaction: RedactionOption = None,
    redaction_rules: RedactionRulesOption = None,
) -> None:
    """Check the rules of redaction, and show what they remove. Nothing is sent.

    Without FILE, the rules of the level are listed. Otherwise each line is printed that redaction changes, as it
    would be stored. Only with --tool it is known whom a record names: the others stay as they are.

    Exit codes: 0 the rules are valid, and every file was read; 2 a rule is wrong, or a file cannot be read.
    """
    rules = redactor(settings, redaction, redaction_rules)
    if not files:
        _list(output, rules)
        return
    lines = list(_records(files, rules, tool) if tool is not None else _texts(files, rules, sql))
    counts = Counter(rule for line in lines for rule in dict.fromkeys(line["rules"]))

    def show(console: Console) -> None:
        for line in lines:
            console.print(printable(f"{line['place']}: {line['redacted']}"), markup=False, soft_wrap=True)
        for rule, count in counts.most_common():
            console.print(f"{count:6,} {rule}", markup=False)

    output.record({"lines": lines, "counts": dict(counts)}, show)


def _list(output: Output, rules: Redactor | None) -> None:
    rows = [
        {"rule": one.name, "level": "strict" if one.strict else "default", "removes": one.about}
        for one in (rules.rules if rules else ())
    ]
    fields = rules.own_fields if rules else ()
    rows += [{"rule": one.name, "level": one.level, "removes": "the member " + ".".join(one.path)} for one in fields]
    output.rows(rows, identity="rule", show=lambda console: print_table(console, rows, _COLUMNS))


def _records(files: list[str], rules: Redactor | None, tool: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a tool that redaction changed."""
    events: list[Event] = []
    importer = Importer(make_adapter(tool, redactor=rules), events.append)
    for source in inputs(files):
        with source:
            for record in source.records(importer.envelopes):
                del events[:]
                importer.take(record)
                after = (events[0].raw or b"").decode("utf-8", "backslashreplace") if events else ""
                if events and events[0].raw != record.raw and MARK_START in after:
                    yield _line(record.location, after)


def _texts(files: list[str], rules: Redactor | None, is_query: bool) -> Iterator[dict[str, Any]]:
    """Yield the lines that redaction changes."""
    for source in inputs(files) if rules is not None else ():
        with source:
            for place, content, _problem in source.lines(MAX_RECORD_BYTES):
                if content is None or not content.strip() or rules is None:
                    continue
                before = content.decode("utf-8", "backslashreplace")
                try:
                    record = parse_object(content, place)
                except RecordError:
                    after = rules.text(before, is_query=is_query)
                else:
                    clean = rules.record(record.values, content, Known)
                    after = before if clean is record.values else Fields(clean, place).encoded().decode()
                if after != before:
                    yield _line(place, after)


def _line(place: object, after: str) -> dict[str, Any]:
    return {"place": str(place), "rules": rules_in(after), "redacted": after}
