"""The heads of earlier verifications, which later ones must still contain: the file of ``verify --state``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base.errors import UsageError
from ..base.files import write_whole
from ..ledger.entry import split_origin
from ..ledger.note import Checkpoint
from .anchors import Logs, differing
from .logs import VerifiedRoots
from .since import Since
from .steps import Problem

VERSION = 1
Heads = Mapping[str, tuple[int, str]]
"""Size and root, in hex, by origin."""


class HeadsFileError(UsageError):
    """The state file cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class RememberedHeads:
    """The verified heads of a deployment, by source of the evidence: one source may be behind another.

    Attributes:
        going_on: where a verification of the store may go on.
    """

    deployment: str
    heads: Mapping[str, Heads] = field(default_factory=dict)
    going_on: Since | None = None

    def remember(self, source: str, heads: Heads, going_on: Since | None = None) -> RememberedHeads:
        """Return the state after a sound verification."""
        known = {**self.heads, source: {**self.heads.get(source, {}), **heads}}
        store = source == "clickhouse"
        return RememberedHeads(self.deployment, known, going_on if store and going_on else self.going_on)

    def since(self, since: Since) -> RememberedHeads:
        """Return the heads that a verification that goes on can compare."""
        heads = {
            source: {origin: head for origin, head in known.items() if since.compared(origin, head[0])}
            for source, known in self.heads.items()
        }
        return replace(self, heads=heads)


def read_state(path: Path, deployment: str) -> RememberedHeads:
    """Read a state file; without one, nothing is remembered yet.

    Raises:
        HeadsFileError: it cannot be read, is not a state file, or belongs to another deployment.
    """
    try:
        parsed = json.loads(path.read_bytes())
        if parsed["version"] != VERSION:
            raise ValueError
        heads = {
            str(source): {str(origin): _head(*head) for origin, head in of_source.items()}
            for source, of_source in parsed["heads"].items()
        }
        going_on = Since.from_json(parsed["since"]) if "since" in parsed else None
        found = RememberedHeads(str(parsed["deployment"]), heads, going_on)
    except FileNotFoundError:
        return RememberedHeads(deployment)
    except OSError as error:
        raise HeadsFileError(f"the state file {path} cannot be read: {error.strerror} (--state)") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HeadsFileError(f"{path} is not a state file of `grantledger verify` (--state)") from None
    if found.deployment != deployment:
        raise HeadsFileError(f"the state file {path} belongs to deployment {found.deployment}, not to {deployment}")
    return found


def _head(size: object, root: object) -> tuple[int, str]:
    if type(size) is not int or size < 0 or not isinstance(root, str) or not re.fullmatch("[0-9a-f]{64}", root):
        raise ValueError
    return size, root


def write_state(path: Path, state: RememberedHeads) -> None:
    """Replace a state file atomically. Only its owner can read and write it.

    Raises:
        HeadsFileError: it cannot be written.
    """
    content = {"version": VERSION, "deployment": state.deployment, "heads": state.heads}
    if state.going_on is not None:
        content["since"] = state.going_on.as_json()
    text = json.dumps(content, indent=1, sort_keys=True)
    try:
        write_whole(path, path.with_name(f".{path.name}.{os.getpid()}"), text.encode())
    except OSError as error:
        raise HeadsFileError(f"the state file {path} cannot be written: {error.strerror} (--state)") from error


def check_remembered(
    state: RememberedHeads, source: str, logs: Logs, anchor_roots: Mapping[str, VerifiedRoots], *, complete: bool
) -> Iterator[Problem]:
    """Yield a problem for each remembered head that a log no longer contains (step 12).

    Logs with a problem are left out.

    Args:
        anchor_roots: of the anchor log, by origin.
        complete: every epoch must be here. In Kafka, a person may have opened a new one because the old one was lost.
    """
    newest: dict[str, int] = {}
    for origin in (*logs, *anchor_roots):
        name, epoch = split_origin(origin)
        newest[name] = max(epoch, newest.get(name, 0))
    for remembered, heads in state.heads.items():
        for origin, (size, root) in heads.items():
            log, head = logs.get(origin), Checkpoint(origin, size, bytes.fromhex(root))
            if log is not None and log.problem is not None:
                continue
            roots = log.roots if log is not None else anchor_roots.get(origin, VerifiedRoots())
            here, found = roots.head[0], roots.at(size)
            if size == 0 or found == head.root:
                continue
            name, epoch = split_origin(origin)
            if size > here and not complete and newest.get(name, 0) > epoch:
                continue
            problem = differing(found, here, head, "an earlier verification found", "remembered_head")
            # The store may be behind the topics, but never behind itself.
            late = problem.check == "truncated" and source == "clickhouse" and remembered != source
            yield replace(problem, kind="behind") if late else problem
