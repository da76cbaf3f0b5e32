"""The stack of ``grantledger demo``: simulated traffic, and one overdue grant that shows a newcomer the next steps."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime, timedelta

from rich.console import Console

from ..base.errors import GrantledgerError
from ..producers import Actor, Approval, Client, Resource, Subject, grant_activated, request_created
from ..runtime.children import ChildSpec
from ..runtime.data_folder import make_folder
from ..runtime.settings import Settings
from ..runtime.stack import Stack
from ..runtime.store_access import ask_store
from ..simulator.company_policy import POLICY
from .output import moment
from .sending import open_client
from .stack_view import demo_policy, executable, run_stack
from .traffic import Traffic

LASTS = timedelta(seconds=5)
"""Duration of the planted grant. It is overdue after the grace period of the policy, 10 s later."""
_FINDING = """
SELECT 1 FROM finding_events WHERE event_type = 'finding.opened' AND rule = 'overdue' AND grant_id = {grant:String}
"""
_SUBJECT = "mallory@demo.example"
_RESOURCE = Resource("database", "payments", "production")


def run_demo(settings: Settings, traffic: Traffic, tool: str) -> None:
    """Run the stack with traffic until SIGTERM or Ctrl-C."""
    arguments = ["demo", "--traffic-only", "--rate", str(traffic.rate), "--faults", str(traffic.faults), "--tool", tool]
    for name, value in (("--lives", traffic.lives), ("--seed", traffic.seed)):
        arguments += [name, str(value)] if value is not None else []
    if settings.watch_policy is None:
        make_folder(settings.data_dir)
        demo_policy(settings).write_text(POLICY)
    run_stack(settings, (ChildSpec("traffic", tuple(arguments), ends=True),), _show_overdue_grant)


def _show_overdue_grant(console: Console, stack: Stack) -> None:
    """Plant an overdue grant, and print the next commands when its finding is there."""
    settings, grant, ends = stack.settings, f"demo-{secrets.token_hex(3)}", datetime.now(UTC) + LASTS
    try:
        with open_client(settings, system="demo", instance=grant) as client:
            _plant(client, grant, ends)
    except GrantledgerError as error:
        console.print(f"The demo grant could not be sent: {error}", markup=False)
        return
    console.print(
        f"Planted: the grant {grant} of {_SUBJECT} ends at {moment(ends)} UTC, and nobody removes it. "
        "Its finding appears here in about 20 seconds.",
        soft_wrap=True,
    )

    def wait() -> None:
        while True:
            time.sleep(2.0)
            try:
                with ask_store(settings, shared=True) as ask:
                    if ask(_FINDING, grant=grant):
                        break
            except GrantledgerError:  # the store restarts
                continue
        console.print(_next_steps(settings, grant), soft_wrap=True, markup=False)

    threading.Thread(target=wait, name="demo-finding", daemon=True).start()


def _next_steps(settings: Settings, grant: str) -> str:
    removal = (
        "emit", "grant.revoked", "--subject", _SUBJECT, "--resource-kind", _RESOURCE.kind, "--resource", _RESOURCE.id,
        "--environment", str(_RESOURCE.environment), "--entitlement", "readwrite", "--grant-id", grant,
        "--removal-evidence", "confirmed", "--actor", "demo", "--actor-kind", "system", "--system", "demo",
        "--instance", grant,
    )  # fmt: skip
    return (
        f"\nFINDING overdue: the grant {grant} has ended, but its access was not removed. Next, in another terminal:\n"
        f"  see open findings:         {executable(settings, 'findings')}\n"
        f"  see the grant's history:   {executable(settings, 'grants', 'show', grant)}\n"
        f"  verify the evidence:       {executable(settings, 'verify')}\n"
        f"  report the removal:        {executable(settings, *removal)}\n"
        "The last command stands for the tool, here the demo itself: once it reports that the access is gone, the "
        "finding is resolved. In production, on-call would have an alert by now: see docs/alerts.md.\n"
    )


def _plant(client: Client, grant: str, ends: datetime) -> None:
    subject, request, reason = Subject(_SUBJECT, "human"), f"request-{grant}", "INC-4711: stuck migration"
    client.send(
        request_created(
            subject=subject, request_id=request, actor=Actor(_SUBJECT, "human"), resource=_RESOURCE,
            entitlement="readwrite", reason=reason,
        )
    )  # fmt: skip
    approver = "alice@demo.example"
    client.send(
        grant_activated(
            subject=subject, grant_id=grant, request_id=request, actor=Actor(approver, "human"), expires_at=ends,
            approvals=(Approval(approver, "approved", at=datetime.now(UTC)),), resource=_RESOURCE,
            entitlement="readwrite", reason=reason,
        )
    )  # fmt: skip
