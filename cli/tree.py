"""The tree of commands: the name, summary and function of each. Nothing is imported before it is invoked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command. ``target`` is ``module:function`` in this package."""

    summary: str
    target: str


@dataclass(frozen=True, slots=True)
class Group:
    """Commands about one subject. ``default`` runs when no command is given."""

    summary: str
    commands: Mapping[str, Command]
    default: str | None = None


COMMANDS: Mapping[str, Command | Group] = {
    "up": Command("Start the local stack and stay until Ctrl-C, which drains and stops it.", "up:command"),
    "demo": Command("Start the local stack with simulated traffic and one overdue grant.", "demo:command"),
    "status": Command("Show how far the pipeline is and which process has trouble.", "status:command"),
    "emit": Command("Send events given by flags or as JSON lines.", "emit:command"),
    "import": Command("Send the records of a tool's audit files through its adapter.", "import_:command"),
    "query": Command("Query the store in SQL, read-only.", "query:command"),
    "grants": Group(
        "See who has access, until when, and what should be gone.",
        {
            "list": Command("List grants.", "grants:list_command"),
            "show": Command("Show one grant from its request to its removal.", "grant_show:command"),
        },
        default="list",
    ),
    "findings": Group(
        "See what is wrong, acknowledge it and close it.",
        {
            "list": Command("List open findings.", "findings:list_command"),
            "show": Command("Show one finding, its evidence and what to do.", "findings:show"),
            "ack": Command("Acknowledge a finding.", "findings:acknowledge"),
            "close": Command("Close a finding, with a reason.", "findings:close"),
        },
        default="list",
    ),
    "verify": Command("Check every stored record against its hash, signature and anchor.", "verify:command"),
    "run": Group(
        "Run one process of the pipeline until SIGTERM or Ctrl-C.",
        {
            "seal": Command("Chain and sign every record.", "run.seal:command"),
            "store": Command("Write sealed batches to ClickHouse.", "run.store:command"),
            "anchor": Command("Anchor the heads of all logs outside, at a fixed interval.", "run.anchor:command"),
            "watch": Command("Follow every grant and report access that did not end on time.", "run.watch:command"),
            "sweep": Command("Compare the findings of the watch with the store, in SQL.", "run.sweep:command"),
            "alert": Command("Deliver findings to Alertmanager and webhooks.", "run.alert:command"),
            "enforce": Command("Revoke overdue access; a dry run unless told to act.", "run.enforce:command"),
        },
    ),
    "breaker": Group(
        "See and close the circuit breaker of the enforcer.",
        {
            "show": Command("Show whether the breaker is open.", "breaker:show"),
            "close": Command("Close the breaker, with a reason.", "breaker:close"),
        },
        default="show",
    ),
    "channels": Group(
        "See the alert channels, and enable one again.",
        {
            "list": Command("List channels, undelivered alerts and failures.", "channels:list_command"),
            "enable": Command("Resume the deliveries of a disabled channel.", "channels:enable"),
        },
        default="list",
    ),
    "topics": Group(
        "Create the Kafka topics, or check their configuration.",
        {
            "create": Command("Create the topics that are missing, and check them all.", "topics:create"),
            "check": Command("Compare the topics with the required configuration.", "topics:check"),
        },
        default="check",
    ),
    "keys": Command("Print the verifier keys of the logs.", "keys:command"),
    "settings": Command("Print every setting with its value and meaning.", "settings:command"),
    "init": Command("Create a new ledger on your own Kafka cluster.", "init:command"),
    "erase": Command("Erase the payload of one entry by law.", "erase:command"),
}
"""Every command, in the order in which a newcomer needs them."""
