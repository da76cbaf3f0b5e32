"""The information that the person who is paged needs to act: who, where, why, how late, and the next command."""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta

from ...schemas.finding_rules import FINDING_RULES
from .finding import FindingEvent, shown_text

LATE_RULES = frozenset({"overdue", "session_outlived_grant", "removal_unconfirmed"})
"""Rules whose deadline is the end of the access; others use it to distinguish their findings."""
LONGEST_TEXT = 300
"""Characters of a line of the description. The separate fields have the whole text."""


def page_of(finding: FindingEvent) -> dict[str, str]:
    """Return the fields of a page besides the facts. Empty ones are left out."""
    facts, late = finding.facts, late_seconds(finding)
    if "findings" in facts:
        tool = "/".join(filter(None, finding.issuer))
        return {"findings": facts["findings"], "next_command": list_command(finding.rule, tool)} | (
            {"tool": tool} if tool else {}
        )
    is_access = finding.rule in FINDING_RULES and bool(FINDING_RULES[finding.rule].about)
    person = (facts.get("subject_email") or facts.get("subject") or "not known") if is_access else ""
    page = {
        "finding_id": finding.finding_id,
        "person": person,
        "tool": "/".join(filter(None, finding.issuer)),
        "late": f"{timedelta(seconds=int(late))} when the finding opened" if late is not None else "",
        "approved_by": facts.get("approved_by") or ("no approval on record" if is_access else ""),
        "reason": facts.get("reason") or ("none on record" if is_access else ""),
        "next_command": next_command(finding),
    }
    return {name: text for name, text in page.items() if text}


def late_seconds(finding: FindingEvent) -> float | None:
    """Return how late the access was when the finding opened; None if its deadline is not the end of an access."""
    if (
        finding.change != "opened"
        or finding.rule not in LATE_RULES
        or not finding.deadline
        or "findings" in finding.facts
    ):
        return None
    late = finding.at / 1_000_000 - datetime.fromisoformat(finding.deadline).timestamp()
    return round(max(0.0, late), 3)


def list_command(rule: str, tool: str) -> str:
    """Return the command that lists the open findings of a rule, about the access that a tool issued."""
    usable = tool and shown_text(tool, LONGEST_TEXT) == tool and tool[:1] != "-"
    source = ["--source", tool] if usable else []
    return shlex.join(["grantledger", "findings", "list", "--rule", rule, *source, "--limit", "100000"])


def next_command(finding: FindingEvent) -> str:
    """Return the command that shows the grant, with everything that distinguishes it; else the finding."""
    fact, grant = finding.facts.get, finding.facts.get("grant_id", "")
    tool = "/".join(filter(None, (fact("grant_source_system", ""), fact("grant_source_instance", ""))))
    tenant = fact("tenant", "default")
    arguments = ["grantledger", "grants", "show", grant]
    arguments += ["--source", tool] if tool else []
    arguments += ["--tenant", tenant] if tenant != "default" else []
    # A text that a terminal cannot show unchanged, or that looks like an option, would name something else.
    usable = all(shown_text(text, LONGEST_TEXT) == text and text[:1] != "-" for text in (grant, tool, tenant))
    if grant and usable:
        return shlex.join(arguments)
    return f"grantledger findings show {finding.finding_id}"


def description(finding: FindingEvent, runbook_base_url: str) -> str:
    """Return everything as lines of text, for receivers that show only one field."""
    facts, page = finding.facts, page_of(finding)
    environment = facts.get("environment", "")
    resource = " ".join(filter(None, (facts.get("resource_kind"), facts.get("resource"))))
    if not page.get("person"):
        resource, environment = "", ""
    lines = {
        "findings": page.get("findings", ""),
        "person": page.get("person", ""),
        "tool": page.get("tool", ""),
        "resource": resource,
        "environment": environment or ("not known" if resource else ""),
        "entitlement": facts.get("entitlement", ""),
        "grant": facts.get("grant_id", ""),
        "session": facts.get("session_id", ""),
        "deadline": f"{finding.deadline[:10]} {finding.deadline[11:19]} UTC"
        if finding.rule in LATE_RULES and "findings" not in page
        else "",
        "late": page.get("late", ""),
        "approved by": page.get("approved_by", ""),
        "reason": page.get("reason", ""),
        "about": finding.key if not {"person", "findings"} & page.keys() else "",
        "next": page["next_command"],
        "runbook": finding.runbook_at(runbook_base_url),
    }
    whole = {"next", "runbook"}
    return "\n".join(
        f"{name}: {text if name in whole else shown_text(text, LONGEST_TEXT)}" for name, text in lines.items() if text
    )


def headline(finding: FindingEvent) -> str:
    """Return one sentence: the rule's summary, who, on which resource, and since when."""
    facts, page = finding.facts, page_of(finding)
    if "findings" in page:
        about = f" of {page['tool']}" if "tool" in page else ""
        return f"{page['findings']} findings{about} within an hour, one page for all: {finding.summary}"
    where = " ".join(facts.get(name, "") for name in ("entitlement", "resource") if facts.get(name))
    environment = f" ({facts['environment']})" if facts.get("environment") else ""
    about = page.get("person") or facts.get("subject") or finding.key
    parts = [f"{finding.summary}: {about}"]
    if where:
        parts.append(f"{where}{environment}")
    if finding.deadline and finding.rule in LATE_RULES:
        parts.append(f"deadline {finding.deadline[:10]} {finding.deadline[11:19]} UTC")
    if finding.key != about:
        parts.append(f"{FINDING_RULES[finding.rule].about if 'person' in page else 'key'} {finding.key}")
    return ", ".join(parts)
