"""``grantledger policy``: checks policy files before a process reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..base.text import printable
from ..base.toml import load_toml
from ..enforcers.enforcement_policy import EnforcementPolicy
from ..processors.watch_policy import BUILT_IN, AccessLimits, AccessRule, WatchPolicy, load_policy
from ..runtime.settings import Settings
from .config_file import ConfigFile
from .errors import fail
from .output import Column, Output, Row, print_table, span

_PATTERNS = ("tenant", "source", "instance", "resource_kind", "resource", "environment", "entitlement")
_LIMITS = tuple(AccessLimits.model_fields)
_TITLES = {
    "grace_seconds": "grace", "max_seconds": "longest", "approvals": "approvals",
    "approval_wait_seconds": "approval wait", "removal": "removal counts if", "ends_by_itself": "ends by itself",
    "confirm_wait_seconds": "confirm wait", "sessions_need_grant": "sessions need grant", "revoke": "revoke",
}  # fmt: skip


def check(
    settings: Settings,
    output: Output,
    file: ConfigFile = None,
    enforcement: Annotated[
        bool, typer.Option("--enforcement", help="FILE is an enforcement policy, not a watch policy.")
    ] = False,
) -> None:
    """Check a policy file, and show what it sets for which access. No process and no broker is needed.

    Each error is named with file and line. In the table, later rows win: each row shows what it sets, for access that
    matches all its patterns, and leaves everything else to the rows above.

    Exit codes: 0 the policy is valid; 2 it is not, or the file cannot be read.
    """
    path = file or (settings.enforce_config if enforcement else settings.watch_policy)
    if path is None:
        name = "GRANTLEDGER_ENFORCE_CONFIG" if enforcement else "GRANTLEDGER_WATCH_POLICY"
        fail(f"give a FILE, or set {name}")
    if enforcement:
        _show_routes(output, path, load_toml(path, EnforcementPolicy))
    else:
        _show_limits(output, path, load_policy(path))


def _show_limits(output: Output, path: Path, policy: WatchPolicy) -> None:
    rows = list(_rows_of(policy))
    used = [name for name in _LIMITS if any(name in row["sets"] for row in rows)]
    columns = [
        Column("for", lambda row: printable(row["for"])),
        *(Column(_TITLES[name], lambda row, name=name: _shown(name, row["sets"].get(name, ""))) for name in used),  # type: ignore[misc]
    ]

    def show(console: Console) -> None:
        console.print(f"{printable(str(path))}: valid. Later rows win; an empty cell leaves what the rows above set.")
        print_table(console, rows, columns)
        for line in _others(policy):
            console.print(f"  {printable(line)}", markup=False)

    output.record({"file": str(path), "valid": True, "rules": rows, "others": list(_others(policy))}, show)


def _rows_of(policy: WatchPolicy) -> Iterator[Row]:
    """Yield what the default and each rule set."""
    yield {"for": "everything (default)", "sets": _plain(policy.default, set(_LIMITS))}
    for number, rule in enumerate(policy.rule, 1 - len(BUILT_IN.rule)):
        name = f"rule {number}" if number > 0 else "built in"
        yield {"for": f"{name}: {_whom(rule)}", "sets": _plain(rule, set(_LIMITS) & rule.model_fields_set)}


def _whom(rule: AccessRule) -> str:
    given = [f"{name} {getattr(rule, name)}" for name in _PATTERNS if getattr(rule, name) != "*"]
    return ", ".join(given) or "everything"


def _plain(limits: AccessLimits, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in limits.model_dump(mode="json", include=names).items() if name in names}


def _shown(name: str, value: Any) -> str:
    if name.endswith("_seconds") and value != "":
        return "none" if value is None else span(value) if value >= 1 or not value else f"{value:g} s"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _others(policy: WatchPolicy) -> Iterator[str]:
    """Yield the other sections, one line each."""
    yield f"history after {span(policy.history_after_seconds)}; {policy.lookups_per_minute:g} lookups per minute"
    for one in policy.source:
        given = one.model_dump(exclude_unset=True, exclude={"system", "instance"})
        yield f"source {one.system}/{one.instance}: {', '.join(f'{name} {value:g}' for name, value in given.items())}"
    for reporter in policy.reporter:
        about = f"{reporter.source}/{reporter.source_instance}"
        yield f"reporter {reporter.system}/{reporter.instance}: may {', '.join(sorted(reporter.may))} for {about}"
    counts = {"installation": policy.installation, "person": policy.person, "environment": policy.environment}
    named = [f"{len(entries):,} {name}" for name, entries in counts.items() if entries]
    yield f"names: {', '.join(named) or 'none'}"
    for rule, severity in sorted(policy.severity.items()):
        yield f"severity of {rule}: {severity}"


def _show_routes(output: Output, path: Path, policy: EnforcementPolicy) -> None:
    rows = [route.model_dump(mode="json", exclude_unset=True) for route in policy.routes]

    def show(console: Console) -> None:
        console.print(f"{printable(str(path))}: valid. The first route that matches removes the access.")
        print_table(console, rows, [Column("route", lambda row: ", ".join(f"{k} {_text(v)}" for k, v in row.items()))])
        for name, target in policy.targets.items():
            console.print(f"  target {printable(name)}: {target.plugin}", markup=False)

    targets = {name: target.plugin for name, target in policy.targets.items()}
    output.record({"file": str(path), "valid": True, "routes": rows, "targets": targets}, show)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
