"""``grantledger follow``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import structlog
import typer
from pydantic import ValidationError

from ..base.errors import EXIT_USAGE, GrantledgerError
from ..base.retry import retry
from ..kafka.errors import KafkaUnavailableError
from ..producers.adapters import ADAPTERS
from ..producers.client import Client, ClientError
from ..producers.follow.config import FollowConfig, FollowedTool, load_follow_config
from ..producers.follow.follower import Follower
from ..producers.follow.sender import KAFKA_OPTIONS
from ..producers.follow.state_file import StateFile
from ..producers.redaction.redactor import Redactor
from ..runtime.process import StopRequest, on_stop_signal, serving
from ..runtime.settings import Settings
from .errors import fail
from .import_summary import print_summary
from .mapping_option import MappingOption
from .output import Output
from .redaction_option import RedactionOption, RedactionRulesOption, redactors
from .sending import SOME_REFUSED, SourceKeyOption, key_path, make_client, plain

log = structlog.get_logger("grantledger.follow")


def command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    tool: Annotated[
        str | None, typer.Argument(metavar="TOOL", help=f"One of {', '.join(sorted(ADAPTERS))}. Not with --tools.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Files, folders, or patterns such as 'logs/*.log'; - is standard input, journald:UNIT a unit.",
        ),
    ] = None,
    tools: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="TOML file with several tools."),
    ] = None,
    mapping: MappingOption = None,
    instance: Annotated[
        str | None, typer.Option(help="Name of the installation of the tool. Default: the one in each record.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the events.")] = "default",
    source_key: SourceKeyOption = None,
    redaction: RedactionOption = None,
    redaction_rules: RedactionRulesOption = None,
    state: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File with the positions. Default: follow/positions.json in the data folder.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Read to the ends of the files, print a summary and exit.")
    ] = False,
) -> None:
    """Follow a tool's audit files: send their records as they are written.

    The events are those of `grantledger import`, with the same ids. Rotated files are read to their ends, also those
    that were renamed, compressed or copied and truncated while this process was down. The position of each file is
    written after Kafka has acknowledged its events, so a kill loses nothing: docs/follow.md.

    Exit codes: 0 stopped on request, or with --once all read and acknowledged; 1 Kafka refused an event, or with --once
    some records failed; 2 a setting, a file or an argument is wrong.
    """
    if tools is None:
        followed = _followed(tool, files or [], instance, tenant, mapping)
    elif tool is not None or instance is not None or mapping is not None or tenant != "default":
        fail("--tools names everything: leave TOOL, FILE, --instance, --mapping and --tenant out")
    else:
        followed = load_follow_config(tools)
    rules = redactors(settings, redaction, redaction_rules)
    redactor_of = {one.name: rules.of(one.redaction) for one in followed.follow}
    path = state or settings.data_dir / "follow" / "positions.json"
    clients: dict[Path | None, Client] = {}

    def client_of(one: FollowedTool) -> Client:
        key = key_path(settings, one.source_key or source_key)
        if key not in clients:
            clients[key] = make_client(settings, source_key=key, options=KAFKA_OPTIONS)
        return clients[key]

    state_file = StateFile(path)
    with state_file.locked():
        try:
            if once:
                _once(followed, state_file, client_of, redactor_of, output=output, signed=lambda: None not in clients)
            else:
                name = "follow" if state is None else f"follow-{state.stem}"
                _follow(followed, state_file, client_of, redactor_of, settings=settings, name=name)
        finally:
            for client in clients.values():
                with suppress(ClientError):  # what is not acknowledged is before no position
                    client.close(timeout=0.0)


def _followed(
    tool: str | None, files: list[str], instance: str | None, tenant: str, mapping: Path | None
) -> FollowConfig:
    """Return what the arguments name."""
    if tool is None or not files:
        fail("name a tool and its files, for example `grantledger follow vault audit.log`, or --tools FILE")
    try:
        followed = FollowedTool(tool=tool, instance=instance, tenant=tenant, files=tuple(files), mapping=mapping)
        return FollowConfig(follow=(followed,))
    except ValidationError as error:
        fail("; ".join(_problem(one["loc"], one["msg"]) for one in error.errors(include_input=False)))


def _problem(location: tuple[int | str, ...], message: str) -> str:
    return f"{str(location[0]).upper()}: {message.removeprefix('Value error, ')}"


def _follow(
    followed: FollowConfig,
    state_file: StateFile,
    client_of: Callable[[FollowedTool], Client],
    redactor_of: Mapping[str, Redactor | None],
    *,
    settings: Settings,
    name: str,
) -> None:
    state_file.read()
    settings.kafka_client_options()  # a wrong option is reported before the process starts
    with serving(name, settings):
        stop = StopRequest()

        def wait(seconds: float) -> None:
            stop.event.wait(seconds)

        def answered(one: FollowedTool) -> Client:
            """Return the client; wait for Kafka."""
            return retry(
                lambda: client_of(one),
                retryable=lambda error: isinstance(error, KafkaUnavailableError) and not stop.event.is_set(),
                on_retry=lambda error: log.warning("kafka_away", reason=str(error)),
                sleep=wait,
            )

        try:
            follower = Follower(followed.follow, state_file, answered, redactors=redactor_of)
        except KafkaUnavailableError:
            if stop.event.is_set():
                return
            raise
        on_stop_signal(follower.stop)
        if stop.event.is_set():
            return
        follower.run()


def _once(
    followed: FollowConfig,
    state_file: StateFile,
    client_of: Callable[[FollowedTool], Client],
    redactor_of: Mapping[str, Redactor | None],
    *,
    output: Output,
    signed: Callable[[], bool],
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))  # the summary tells it
    follower = Follower(followed.follow, state_file, client_of, once=True, redactors=redactor_of)
    on_stop_signal(follower.stop)
    problems: list[str] = []
    try:
        follower.run()
    except GrantledgerError as error:
        problems.append(plain(error))
    problems += follower.problems()
    report = follower.report()
    names = ", ".join(dict.fromkeys(one.tool for one in followed.follow))
    print_summary(names, report, follower.acknowledged, "; ".join(problems) or None, output, signed=signed())
    if problems:
        fail("\n".join(problems), EXIT_USAGE)
    raise typer.Exit(SOME_REFUSED if report.failed else 0)
