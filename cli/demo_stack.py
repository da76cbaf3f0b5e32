"""The stack of ``grantledger demo``: simulated traffic, and one overdue grant that shows a newcomer the way."""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, datetime, timedelta

from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.console import Console

from ..producers import Actor, Approval, Client, ClientError, Resource, Subject, grant_activated, request_created
from ..runtime.children import ChildSpec
from ..runtime.reading import reading
from ..runtime.settings import Settings
from ..runtime.stack import Stack
from ..simulator.policy import POLICY
from ..sinks.clickhouse import StoreUnavailableError
from .output import moment
from .sending import open_client
from .stack_view import executable, run_stack
from .traffic import Traffic

LASTS = timedelta(seconds=15)
"""How long the planted grant lasts. It is overdue after the grace period of the policy, 10 s later."""
_FINDING = "SELECT deadline FROM findings WHERE rule = 'overdue' AND grant_id = {grant:String} AND open"
_SUBJECT = "mallory@demo.example"
_RESOURCE = Resource("database", "payments", "production")


def run_demo(settings: Settings, traffic: Traffic, tool: str) -> None:
    """Run the stack with traffic until SIGTERM or Ctrl-C."""
    arguments = ["demo", "--traffic-only", "--rate", str(traffic.rate), "--faults", str(traffic.faults), "--tool", tool]
    for name, value in (("--lives", traffic.lives), ("--seed", traffic.seed)):
        arguments += [name, str(value)] if value is not None else []
    if settings.watch_policy is None:
        # Under another policy the simulated lives would be full of findings.
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        policy = settings.data_dir.resolve() / "demo-policy.toml"
        policy.write_text(POLICY)
        settings = settings.model_copy(update={"watch_policy": policy})
    run_stack(settings, (ChildSpec("traffic", tuple(arguments), ends=True),), _Tour)


class _Tour:
    """Plants an overdue grant, waits for its finding in the background, and prints the next commands."""

    def __init__(self, console: Console, stack: Stack) -> None:
        self._console, self._settings = console, stack.settings
        self._grant = f"demo-{secrets.token_hex(3)}"
        self._deadline: datetime | None = None
        self._found = threading.Event()
        self._shown = False
        ends = datetime.now(UTC) + LASTS
        try:
            with open_client(self._settings, system="demo", instance=self._grant) as client:
                _plant(client, self._grant, ends)
        except ClientError as error:
            console.print(f"The demo grant could not be sent: {error}", markup=False)
            return
        console.print(
            f"Planted: the grant {self._grant} of {_SUBJECT} ends at {moment(ends)} UTC, and nobody removes it. "
            "Its finding appears here in about half a minute.",
            soft_wrap=True,
        )
        threading.Thread(target=self._wait, name="demo-finding", daemon=True).start()

    def __call__(self) -> None:
        """Print the next steps once the finding is there."""
        if self._found.is_set() and not self._shown:
            self._shown = True
            self._console.print(self._steps(), soft_wrap=True, markup=False)

    def _wait(self) -> None:
        pause = threading.Event()
        while not pause.wait(2.0):
            try:
                with reading(self._settings, gated=True, shared=True) as client:
                    if client.query(_FINDING, parameters={"grant": self._grant}).result_rows:
                        self._found.set()
                        return
            except (StoreUnavailableError, ClickHouseError, OSError):
                continue

    def _steps(self) -> str:
        def line(*arguments: str) -> str:
            return executable(self._settings, *arguments)

        return (
            f"\nFINDING overdue: the grant {self._grant} has ended, but its access was not removed. Next, in another "
            "terminal:\n"
            f"  see open findings:         {line('findings')}\n"
            f"  see the grant's history:   {line('grants', 'show', self._grant)}\n"
            f"  verify the evidence:       {line('verify')}\n"
            f"  remove the access:         {line(*self._removal())}\n"
            "The finding is resolved when the removal is on record. An alert would have reached on-call by now: see "
            "docs/alerts.md.\n"
        )

    def _removal(self) -> tuple[str, ...]:
        return (
            "emit", "grant.revoked", "--subject", _SUBJECT, "--resource-kind", _RESOURCE.kind, "--resource",
            _RESOURCE.id, "--environment", str(_RESOURCE.environment), "--entitlement", "readwrite", "--grant-id",
            self._grant, "--removal-evidence", "confirmed", "--system", "demo", "--instance", self._grant,
        )  # fmt: skip


def _plant(client: Client, grant: str, ends: datetime) -> None:
    subject, actor = Subject(_SUBJECT, "human"), Actor("alice@demo.example", "human")
    request = f"request-{grant}"
    client.send(
        request_created(
            subject=subject, request_id=request, actor=Actor(_SUBJECT, "human"), resource=_RESOURCE,
            entitlement="readwrite", reason="INC-4711: stuck migration",
        )
    )  # fmt: skip
    approval = Approval("alice@demo.example", "approved", at=datetime.now(UTC))
    client.send(
        grant_activated(
            subject=subject, grant_id=grant, request_id=request, actor=actor, expires_at=ends, approvals=(approval,),
            resource=_RESOURCE, entitlement="readwrite", reason="INC-4711: stuck migration",
        )
    )  # fmt: skip
