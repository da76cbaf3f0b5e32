"""``grantledger sources``: registers sources, and lists their keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from ..base.text import printable
from ..ledger.keys import LocalSigner, read_public_pem
from ..ledger.source_keys import NOTICE_MS, Registration, ValidKey
from ..runtime.settings import Settings
from ..runtime.source_keys import (
    key_file,
    publish_as_operator,
    registered_sources,
    registration,
    source_key,
)
from ..schemas.event import RegisteredSource, SourceKey
from ..schemas.own_sources import PREFIX
from .errors import fail
from .output import Column, Output, Row, echo, text_column
from .person import PersonOption, person, required

NOTICE = timedelta(milliseconds=NOTICE_MS + 10_000)
"""When a new key is valid: after the registration is in force, whatever the clocks."""

SystemArgument = Annotated[str, typer.Argument(metavar="SYSTEM", help="source.system of its events, such as vault.")]
InstanceOption = Annotated[str, typer.Option(help="source.instance of its events: the installation of the tool.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the record.")]
KeyOption = Annotated[
    Path | None, typer.Option("--key", dir_okay=False, help="New file for the private key, mode 0600.")
]
PublicOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Public key, PEM, that the source made itself, instead of --key."),
]


def keys(settings: Settings, output: Output) -> None:
    """List the registered sources and their keys.

    Exit codes: 0 listed; 1 Kafka does not answer; 2 a setting is wrong; 3 the sealed log of findings is discontinuous.
    """
    rows = []
    for (system, instance), stated in sorted(registered_sources(settings).stated().items()):
        for key_id, key in stated.keys.items() or ((b"", None),):
            rows.append(
                {
                    "system": system,
                    "instance": instance,
                    "tenant": stated.tenant.decode() if stated.tenant is not None else None,
                    "key_id": key_id.hex(),
                    "valid_from": _time(key.valid_from_ms) if key else None,
                    "valid_until": _time(key.valid_until_ms) if key else None,
                    "removed": stated.removed,
                }
            )
    columns = [
        text_column("system", "system"),
        text_column("instance", "instance"),
        text_column("tenant", "tenant"),
        text_column("key", "key_id"),
        Column(
            "valid from",
            lambda row: _validity(output, row, "valid_from", "always"),
            whole=True,
        ),
        Column(
            "valid until",
            lambda row: _validity(output, row, "valid_until", "no end"),
            whole=True,
        ),
        Column("state", lambda row: "removed" if row["removed"] else "registered"),
    ]
    output.rows(rows, identity="key_id", show=columns, empty="No sources are registered.")


def add(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    system: SystemArgument,
    instance: InstanceOption,
    reason: ReasonOption,
    key: KeyOption = None,
    public_key: PublicOption = None,
    tenant: Annotated[str, typer.Option(help="The only tenant for which it may report. Default: every tenant.")] = "",
    name: PersonOption = "",
) -> None:
    """Register a source, so that only signed events count as its own.

    Give its sender the private key (--source-key, GRANTLEDGER_SOURCE_KEY_FILE). About a minute later, unsigned events
    in its name are no longer believed.

    Exit codes: 0 on record; 1 Kafka does not answer; 2 the source is registered already, or an option is wrong.
    """
    if system.startswith(PREFIX):
        fail("names that begin with grantledger- are for the pipeline's own sources; `grantledger init` registers them")
    if "/" in system:
        fail(f"SYSTEM must not contain '/': {printable(system)}")
    text, who = required(reason, "--reason"), person(name)
    if (stated := _stated(settings, system, instance)) is not None and not stated.removed:
        fail(f"{printable(system)}/{printable(instance)} is registered already; `sources rotate` gives it a new key")
    new = _new_key(settings, key, public_key)
    _register(settings, RegisteredSource(system, instance, tenant or None, (new,)), text, who)
    echo(f"registered {printable(system)}/{printable(instance)}, key {new.key_id}, valid from {_shown(new)}")


def rotate(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    system: SystemArgument,
    instance: InstanceOption,
    reason: ReasonOption,
    key: KeyOption = None,
    public_key: PublicOption = None,
    overlap_hours: Annotated[
        float, typer.Option(min=0, help="How long the old keys stay valid. 0 for a key that was stolen.")
    ] = 24.0,
    name: PersonOption = "",
) -> None:
    """Give a source a new key.

    Exit codes: 0 on record; 1 Kafka does not answer; 2 the source is not registered, or an option is wrong.
    """
    text, who = required(reason, "--reason"), person(name)
    stated = _required(settings, system, instance)
    new = _new_key(settings, key, public_key)
    until = new.valid_from + timedelta(hours=overlap_hours)
    old = [_kept(one, until) for one in stated.keys.values()] if overlap_hours else []
    keys = (*(one for one in old if one.key_id != new.key_id and _is_current(one)), new)
    tenant = stated.tenant.decode() if stated.tenant is not None else None
    _register(settings, RegisteredSource(system, instance, tenant, keys), text, who)
    echo(f"key {new.key_id} of {printable(system)}/{printable(instance)} is valid from {_shown(new)}")


def remove(
    settings: Settings, system: SystemArgument, instance: InstanceOption, reason: ReasonOption, name: PersonOption = ""
) -> None:
    """Remove a source: in a minute, unsigned events in its name count again, as those of any unregistered source.

    Exit codes: 0 on record; 1 Kafka does not answer; 2 the source is not registered, or is the pipeline's own.
    """
    if system.startswith(PREFIX):
        fail("the pipeline's own sources cannot be removed; `sources rotate` replaces a key")
    text, who = required(reason, "--reason"), person(name)
    stated = _required(settings, system, instance)
    tenant = stated.tenant.decode() if stated.tenant is not None else None
    _register(settings, RegisteredSource(system, instance, tenant, (), removed=True), text, who)
    echo(f"removed {printable(system)}/{printable(instance)}")


def _stated(settings: Settings, system: str, instance: str) -> Registration | None:
    return registered_sources(settings).stated().get((system, instance))


def _required(settings: Settings, system: str, instance: str) -> Registration:
    stated = _stated(settings, system, instance)
    if stated is None or stated.removed:
        fail(
            f"{printable(system)}/{printable(instance)} is not registered; `grantledger sources keys` lists the sources"
        )
    return stated


def _new_key(settings: Settings, path: Path | None, public: Path | None) -> SourceKey:
    """Return the new key; write it to ``path`` if the source has not made it itself."""
    if (path is None) == (public is None):
        fail("give either --key, a new file for the private key, or --public-key")
    if public is not None:
        public_key = read_public_pem(public.read_bytes())
    elif path is not None:
        signer = LocalSigner.generate()
        key_file(settings, path, "").write(signer)
        public_key = signer.public_key
    return source_key(public_key, datetime.now(UTC) + NOTICE)


def _register(settings: Settings, stated: RegisteredSource, reason: str, who: str) -> None:
    publish_as_operator(settings, [registration(settings.require_deployment(), stated, person=who, reason=reason)])


def _kept(key: ValidKey, until: datetime) -> SourceKey:
    """Return an old key, valid until then or less."""
    end = min(key.valid_until_ms, until.timestamp() * 1000)
    return source_key(key.public_key, _time(key.valid_from_ms) or until, _time(end))


def _is_current(key: SourceKey) -> bool:
    return key.valid_until is None or key.valid_until > datetime.now(UTC)


def _time(time_ms: float) -> datetime | None:
    return datetime.fromtimestamp(time_ms / 1000, UTC) if time_ms < float("inf") else None


def _validity(output: Output, row: Row, name: str, without: str) -> str:
    """Return a limit of the validity of a key for people. Keys that ``init`` registers are valid from 1970."""
    time: datetime | None = row[name]
    if not row["key_id"]:
        return ""
    return output.moment(time) if time is not None and time.timestamp() > 0 else without


def _shown(key: SourceKey) -> str:
    return f"{key.valid_from:%Y-%m-%d %H:%M:%S} UTC"
