"""The tree of commands: the name, summary and function of each. A command is imported when it is invoked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command. ``target`` is ``module:function`` in this package, ``extra`` what to install for it."""

    summary: str
    target: str
    extra: str = "embedded"


@dataclass(frozen=True, slots=True)
class Group:
    """Commands about one subject. ``default`` runs when no command is given."""

    summary: str
    commands: Mapping[str, Command]
    default: str | None = None


COMMANDS: Mapping[str, Command | Group] = {
    "up": Command("Run the local stack until Ctrl-C, which drains and stops it.", "up:command"),
    "demo": Command("Run the local stack with simulated traffic and one overdue grant.", "demo:command"),
    "status": Command("Show the progress of the pipeline and the state of its processes.", "status:command"),
    "doctor": Command("Check everything that the ledger needs, and say what to do.", "doctor:command"),
    "emit": Command("Send events, given as flags or as JSON lines.", "emit:command"),
    "check-event": Command("Say all that is wrong with one event, given as bytes or JSON.", "check_event:command"),
    "check-mapping": Command(
        "Check a mapping file for a tool without an adapter, and show what becomes of records.", "check_mapping:command"
    ),
    "check-redaction": Command(
        "Check the rules of redaction, and show what they remove from texts.", "check_redaction:command"
    ),
    "import": Command("Send the records of a tool's audit files through its adapter.", "import_:command"),
    "follow": Command(
        "Send the records of a tool as it writes them, across rotations and restarts.", "follow:command", "follow"
    ),
    "query": Command("Query the store in SQL, read-only.", "query:command"),
    "grants": Group(
        "Show who has access, until when, and which access is overdue.",
        {
            "list": Command("List grants.", "grants:list_command"),
            "show": Command("Show one grant from its request to its removal.", "grant_show:command"),
            "revoke": Command("Request the revocation of a grant, with a reason.", "grant_revoke:command"),
        },
        default="list",
    ),
    "findings": Group(
        "Show, acknowledge and close findings.",
        {
            "list": Command("List open findings.", "findings:list_command"),
            "show": Command("Show one finding, its evidence and the remedy.", "findings:show"),
            "ack": Command("Acknowledge a finding.", "finding_decisions:acknowledge"),
            "close": Command("Close a finding, with a reason.", "finding_decisions:close"),
        },
        default="list",
    ),
    "verify": Command("Verify every stored record against its hash, signature and anchor.", "verify:command"),
    "run": Group(
        "Run one process of the pipeline until SIGTERM or Ctrl-C.",
        {
            "seal": Command("Chain and sign every record.", "run.seal:command"),
            "store": Command("Write sealed batches to ClickHouse.", "run.store:command"),
            "anchor": Command("Write the heads of all logs to external targets, every minute.", "run.anchor:command"),
            "watch": Command("Follow every grant and report access that did not end on time.", "run.watch:command"),
            "sweep": Command("Compare the findings of the watch with the store, in SQL.", "run.sweep:command"),
            "alert": Command("Deliver findings to Alertmanager and webhooks.", "run.alert:command"),
            "enforce": Command("Revoke overdue access. A dry run unless --carry-out is given.", "run.enforce:command"),
            "gateway": Command("Take events and the records of tools by HTTP.", "run.gateway:command", "gateway"),
        },
    ),
    "gateway": Group(
        "Manage the tokens of the sources that send to the gateway.",
        {"token": Command("Make a token for a source, and print it once.", "gateway:token", "gateway")},
    ),
    "breaker": Group(
        "Show or close the circuit breaker of the enforcer.",
        {
            "show": Command("Show whether the breaker is open.", "breaker:show"),
            "close": Command("Close the breaker, with a reason.", "breaker:close"),
        },
        default="show",
    ),
    "channels": Group(
        "Show or check the alert channels, or enable one again.",
        {
            "list": Command("List channels, undelivered alerts and failures.", "channels:list_command"),
            "enable": Command("Resume the deliveries of a disabled channel.", "channels:enable"),
            "check": Command("Check a file with alert channels. Nothing is sent.", "channels:check"),
        },
        default="list",
    ),
    "epoch": Group(
        "Show stopped logs, or continue them as new epochs.",
        {
            "show": Command("Show the stopped logs, and what opening new epochs would bind and lose.", "epoch:show"),
            "open": Command("Continue stopped logs as new epochs, with a reason.", "epoch:open_command"),
        },
        default="show",
    ),
    "policy": Group(
        "Check policy files.",
        {"check": Command("Check a policy file, and show what it sets for which access.", "policy:check")},
    ),
    "adapters": Command("List the tools whose records can be read, and what they do not say.", "adapters:command"),
    "topics": Group(
        "Create the Kafka topics, or check their configuration.",
        {
            "create": Command("Create the topics that are missing, and check them all.", "topics:create"),
            "check": Command("Compare the topics with the required configuration.", "topics:check"),
        },
        default="check",
    ),
    "keys": Group(
        "Show the keys of the logs, or replace the private key.",
        {
            "show": Command("Print the verifier keys of the logs.", "keys:command"),
            "rotate": Command("Replace the private key of the logs, with a reason.", "keys:rotate"),
        },
        default="show",
    ),
    "sources": Group(
        "Show how the sources are doing, or register them, so that only their signed events count as theirs.",
        {
            "list": Command(
                "List the sources: last event, rate, delay, unread records, gaps, silence.", "source_health:command"
            ),
            "keys": Command("List the registered sources and their keys.", "sources:keys"),
            "add": Command("Register a source and make its key.", "sources:add"),
            "rotate": Command("Give a source a new key.", "sources:rotate"),
            "remove": Command("Remove a source.", "sources:remove"),
        },
        default="list",
    ),
    "settings": Command("Print every setting with its value and meaning.", "settings:command"),
    "init": Command("Create a new ledger on your own Kafka cluster.", "init:command"),
    "recompute": Command("Compute the states of requests, grants and findings again.", "recompute:command"),
    "erase": Command("Erase the payload of one entry, as the law may require.", "erase:command"),
}
"""Every command, in the order in which a newcomer needs them."""
