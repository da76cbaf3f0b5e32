"""``grantledger check-event``: says all that is wrong with one event before a team sends it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..base.errors import UsageError
from ..base.text import printable
from ..producers.event_check import CheckedEvent, Problem, check_event, check_place
from ..producers.event_json import event_to_json
from ..runtime.settings import Settings
from ..schemas.placement import ANY_PARTITION, placement_of
from .errors import fail, missing_packages
from .output import Column, Output, echo, print_table

WRONG = 1
"""Exit code: the event is wrong."""
_MOST_BYTES = 64 << 20


def command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The event; - reads it from standard input.")],
    topic: Annotated[str, typer.Option(help="Topic of the record, with or without the topic prefix.")] = "",
    key: Annotated[str | None, typer.Option(help="Key of the record.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Partition of the record.")] = None,
    signature: Annotated[
        str, typer.Option(metavar="HEX", help="Value of the header grantledger-signature, in hex.")
    ] = "",
    public_key: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Public key of the source, PEM. With --signature.")
    ] = None,
    deployment: Annotated[
        str, typer.Option(help="Name of the deployment that was signed. Default: the one in the settings.")
    ] = "",
) -> None:
    """Say all that is wrong with one event, or how the pipeline will understand it. No process and no broker is needed.

    FILE is the value of a Kafka record, as bytes, or a JSON object as `emit --stdin` takes it, which may also have
    event_id, raw_sha256 and salt. Options check what only the record has. The topic prefix and the number of
    lifecycle shards are those in the settings.

    Exit codes: 0 the event is right; 1 something is wrong with it; 2 the file cannot be read, or an option is wrong.
    """
    content = _content(file)
    found = check_event(content, file)
    check_place(
        found,
        settings.lifecycle_shards,
        topic=topic.removeprefix(settings.topic_prefix) or None,
        key=key,
        partition=partition,
    )
    if signature or public_key is not None:
        name = deployment or settings.deployment
        _check_signature(found, settings, name, signature, public_key, topic=topic, key=key)
    _show(output, settings, file, found)
    if found.problems:
        raise typer.Exit(WRONG)


def _content(file: str) -> bytes:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        fail(f"{printable(file)}: cannot be read ({error.strerror})")
    if len(content) > _MOST_BYTES:
        fail(f"{printable(file)}: is larger than {_MOST_BYTES >> 20} MiB: not one event")
    return content


def _check_signature(
    found: CheckedEvent,
    settings: Settings,
    deployment: str,
    signature: str,
    public_key: Path | None,
    *,
    topic: str,
    key: str | None,
) -> None:
    if not signature or public_key is None:
        fail("give --signature and --public-key together")
    with missing_packages("check-event --signature", "follow"):
        from ..ledger.keys import KeyFormatError, read_public_pem
        from ..ledger.signature_mistakes import mistake_of_signer
        from ..ledger.source_keys import SignedRecord
        from ..ledger.source_signature import KEY_ID_SIZE, SIGNATURE_SIZE, is_signed_by, key_id_of, signed_bytes
    if found.event is None:
        return
    if found.value is None:
        fail("--signature: a signature is over the bytes of the value; give these as FILE, not JSON")
    if not deployment:
        fail("--signature: name the deployment with --deployment: a signature is for one deployment")
    try:
        header = bytes.fromhex(signature)
    except ValueError:
        fail("--signature: is not hex")
    try:
        public = read_public_pem(public_key.read_bytes())
    except OSError as error:
        fail(f"--public-key: {printable(str(public_key))} cannot be read ({error.strerror})")
    except KeyFormatError as error:
        raise UsageError(f"--public-key: {error}") from error
    signed_topic = topic.removeprefix(settings.topic_prefix) or found.event.topic
    signed_key = key if key is not None else placement_of(found.event, settings.lifecycle_shards).key
    message = signed_bytes(deployment, signed_topic, signed_key.encode(), found.value)
    if is_signed_by(public, header, message):
        return
    if len(header) != KEY_ID_SIZE + SIGNATURE_SIZE:
        text = f"has {len(header)} bytes, not {KEY_ID_SIZE + SIGNATURE_SIZE}"
    elif header[:KEY_ID_SIZE] != key_id_of(public):
        text = f"begins with the key id {header[:KEY_ID_SIZE].hex()}; this key has {key_id_of(public).hex()}"
    else:
        record = SignedRecord(signed_topic, signed_key.encode(), found.value, b"", 0)
        text = mistake_of_signer(public, header, record, deployment, settings.topic_prefix)
    found.problems.append(Problem("signature", text))


def _show(output: Output, settings: Settings, file: str, found: CheckedEvent) -> None:
    event = found.event
    record: dict[str, Any] = {
        "file": file,
        "valid": not found.problems,
        "problems": [{"field": one.field, "problem": one.problem} for one in found.problems],
        "notes": found.notes,
        "topic": None if event is None else settings.topic_prefix + event.topic,
        "key": None,
        "partition": None,
        "event": None if event is None else event_to_json(event),
    }
    if event is not None:
        placement = placement_of(event, settings.lifecycle_shards)
        record["key"] = placement.key
        record["partition"] = None if placement.partition == ANY_PARTITION else placement.partition
        if not event.source.system:
            # The sender's name is not known, and with it neither the id of the event.
            del record["event"]["event_id"]

    def show(console: Console) -> None:
        if found.problems:
            for one in found.problems:
                echo(f"{file}: {one.field}: {one.problem}", err=True)
        else:
            console.print(f"{printable(file)}: right. The pipeline will understand:", markup=False)
            rows = [{"field": name, "value": text} for name, text in _flat("", record["event"])]
            place = {name: record[name] for name in ("topic", "key", "partition") if record[name] is not None}
            rows = [*({"field": name, "value": str(one)} for name, one in place.items()), *rows]
            columns = [Column(name, lambda row, name=name: row[name]) for name in ("field", "value")]  # type: ignore[misc]
            print_table(console, rows, columns)
        for note in found.notes:
            echo(f"note: {note}", err=True)

    output.record(record, show)


def _flat(path: str, value: Any) -> list[tuple[str, str]]:
    """Return each value in a JSON object with its path."""
    if isinstance(value, dict):
        return [one for name, member in value.items() for one in _flat(f"{path}.{name}" if path else name, member)]
    if isinstance(value, list):
        return [one for number, member in enumerate(value) for one in _flat(f"{path}[{number}]", member)]
    return [(path, str(value))]
