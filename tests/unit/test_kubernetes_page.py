"""The audit policy in docs/sources/kubernetes.md logs what the adapter needs, and its configuration is valid YAML."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources" / "kubernetes.md").read_text("utf-8")
FILES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
[POLICY] = [one for one in FILES if one["kind"] == "Policy"]
RBAC, CERTIFICATES = "rbac.authorization.k8s.io", "certificates.k8s.io"
ALICE = ("alice", ["system:authenticated"])
BOT = ("system:serviceaccount:ci:bot", ["system:serviceaccounts", "system:authenticated"])
NODE = ("system:node:n1", ["system:nodes", "system:authenticated"])


def rule_for(user: tuple[str, list[str]], verb: str, group: str, resource: str) -> dict[str, Any]:
    """Return the rule that decides: the first that matches, as "Auditing" in Kubernetes' documentation says."""
    name, groups = user
    for rule in POLICY["rules"]:
        of_path = "nonResourceURLs" in rule
        listed = [one for one in rule.get("resources", ()) if one["group"] == group]
        if (
            ("users" not in rule or name in rule["users"])
            and ("userGroups" not in rule or set(groups) & set(rule["userGroups"]))
            and ("verbs" not in rule or verb in rule["verbs"])
            and not (of_path and resource)
            and ("resources" not in rule or any(_names(one, resource) for one in listed))
        ):
            found: dict[str, Any] = rule
            return found
    return {"level": "None"}


def _names(entry: dict[str, Any], resource: str) -> bool:
    return any(fnmatch.fnmatchcase(resource, one) for one in entry.get("resources", [resource]))


@pytest.mark.parametrize("user", [ALICE, BOT])
@pytest.mark.parametrize(
    ("verb", "group", "resource", "level"),
    [
        ("create", RBAC, "rolebindings", "RequestResponse"),
        ("patch", RBAC, "clusterrolebindings", "RequestResponse"),
        ("deletecollection", RBAC, "rolebindings", "RequestResponse"),
        ("update", RBAC, "roles", "RequestResponse"),
        ("create", CERTIFICATES, "certificatesigningrequests", "RequestResponse"),
        ("update", CERTIFICATES, "certificatesigningrequests/approval", "RequestResponse"),
        ("update", CERTIFICATES, "certificatesigningrequests/status", "RequestResponse"),
        ("create", "", "serviceaccounts/token", "Request"),
        ("patch", "", "pods/ephemeralcontainers", "Request"),
        ("create", "", "pods/exec", "Metadata"),
        ("get", "", "pods/exec", "Metadata"),
        ("get", "", "pods/portforward", "Metadata"),
        ("create", "", "nodes/proxy", "Metadata"),
    ],
)
def test_what_the_adapter_maps_is_logged(
    user: tuple[str, list[str]], verb: str, group: str, resource: str, level: str
) -> None:
    rule = rule_for(user, verb, group, resource)
    assert rule["level"] == level
    assert "ResponseStarted" not in rule.get("omitStages", ()), "it is the start of a session"


def test_what_else_is_logged() -> None:
    assert rule_for(ALICE, "get", "", "secrets")["level"] == "Metadata"
    assert rule_for(BOT, "list", "", "pods")["level"] == "None"
    assert rule_for(NODE, "create", "", "serviceaccounts/token")["level"] == "None"
    assert POLICY["omitStages"] == ["RequestReceived"]


def test_the_webhook_sends_to_the_route_of_the_adapter() -> None:
    [config] = [one for one in FILES if one["kind"] == "Config"]
    assert config["clusters"][0]["cluster"]["server"].endswith("/ingest/kubernetes")
