"""The whole of docker-compose.yml with stand-ins for the official images: an overdue grant, its page, its proof."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.alertmanager import programs_or_skip
from support.containers import OURS
from support.waiting import wait_for

pytestmark = pytest.mark.docker
ROOT = Path(__file__).resolve().parents[2]
FILES = ("docker-compose.yml", "tests/support/compose/stand-ins.yml")
IMAGE = "grantledger:local"
"""What docker-compose.yml builds. Here, all services have the image of the tests instead."""
SECONDS = 600
LASTING = {"alert", "anchor", "gateway", "seal", "store", "sweep", "watch"}


class AnyTag(yaml.SafeLoader):
    """Reads also what Compose marks with !reset and !override."""


AnyTag.add_multi_constructor("!", lambda _loader, _tag, _node: None)


class Stack:
    """A project of Docker Compose."""

    def __init__(self, name: str, folder: Path) -> None:
        services = {
            service: {"image": OURS}
            for file in FILES
            for service, one in yaml.load((ROOT / file).read_text("utf-8"), AnyTag)["services"].items()
            if one.get("image") == IMAGE
        }
        images = folder / "images.yml"
        images.write_text(yaml.safe_dump({"services": services}))
        files = (part for one in (*FILES, str(images)) for part in ("-f", one))
        self.command = ["docker", "compose", "-p", name, *files]
        programs = programs_or_skip()["promtool"].parents[2]
        self.environment = {**os.environ, "PROGRAMS": str(programs)}

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
            timeout=SECONDS,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("run", "--rm", "-T", "--no-deps", "cli", *arguments, check=check)

    def healthy(self) -> bool:
        listed = map(json.loads, self.run("ps", "--format", "json").stdout.splitlines())
        return {one["Service"] for one in listed if one["Health"] == "healthy"} >= LASTING

    def alerts(self) -> list[dict[str, Any]]:
        amtool = "/programs/usr/bin/amtool"
        query = ("--alertmanager.url=http://127.0.0.1:9093", "alert", "query", "-o", "json")
        found: list[dict[str, Any]] = json.loads(self.run("exec", "-T", "alertmanager", amtool, *query).stdout)
        return [one for one in found if one["labels"]["alertname"] == "GrantledgerOverdue"]


@pytest.fixture(scope="module")
def stack(image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    image(OURS)
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose")
    started = Stack(f"grantledger-test-{os.getpid()}", tmp_path_factory.mktemp("compose"))
    try:
        started.run("--profile", "demo", "up", "-d", "--no-build")
        yield started
    finally:
        started.run("--profile", "demo", "down", "-v", "--timeout", "5", check=False)


def test_a_stranger_sees_the_grant_its_page_and_its_proof(stack: Stack) -> None:
    [alert] = wait_for(stack.alerts, "the page is in Alertmanager", limit=SECONDS)
    assert alert["labels"]["person"] == "mallory@demo.example"
    grant = alert["labels"]["key"]
    assert alert["annotations"]["next_command"] == f"grantledger grants show {grant} --source demo/compose"
    shown = stack.cli("grants", "show", grant, "--source", "demo/compose").stdout
    assert "overdue" in shown and "covered by the signed checkpoint" in shown
    verified = wait_for(lambda: sound(stack), "the ledger is sound", limit=SECONDS)
    assert "SOUND" in verified


def sound(stack: Stack) -> str:
    done = stack.cli("verify", check=False)
    assert done.returncode in (0, 2, 3, 4), done.stdout  # nothing stored yet, behind, no anchor yet
    return done.stdout if done.returncode == 0 else ""


def test_the_gateway_takes_events_over_tls(stack: Stack, tmp_path: Path) -> None:
    stack.run("cp", "gateway:/data/published", str(tmp_path))
    port = stack.run("port", "gateway", "8480").stdout.strip().rpartition(":")[2]
    user = (tmp_path / "published" / "events.curl").read_text().split('"')[1]
    event = {"event_type": "session.started", "subject": "alice", "session_id": "s-1", "source": {"native_id": "job-1"}}
    request = urllib.request.Request(
        f"https://localhost:{port}/v1/events", json.dumps(event).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {user.partition(':')[2]}"},
    )  # fmt: skip
    trusting = ssl.create_default_context(cafile=str(tmp_path / "published" / "ca.pem"))
    with urllib.request.urlopen(request, context=trusting, timeout=60) as answer:
        assert json.load(answer)["accepted"] == 1


def test_prometheus_reads_every_process_and_finds_alertmanager(stack: Stack) -> None:
    def scraped() -> bool:
        up = {one["metric"]["instance"].partition(":")[0] for one in asked("query?query=up==1")["result"]}
        return up >= LASTING | {"node-exporter"}

    def asked(path: str) -> dict[str, Any]:
        program = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
        url = f"http://127.0.0.1:9090/api/v1/{path}"
        found: dict[str, Any] = json.loads(stack.run("exec", "-T", "prometheus", "python", "-c", program, url).stdout)
        return found["data"]

    wait_for(scraped, "every process is scraped", limit=SECONDS)
    [found] = asked("alertmanagers")["activeAlertmanagers"]
    assert found["url"] == "http://alertmanager:9093/api/v2/alerts"
    assert {one["name"] for one in asked("rules")["groups"]} >= {"grantledger-seal", "grantledger-absent"}


def test_it_goes_on_after_a_restart_of_its_parts(stack: Stack) -> None:
    stack.run("kill", "seal", "watch", "store", "kafka", "clickhouse")
    stack.run("up", "-d", "--no-build")
    wait_for(stack.healthy, "all are healthy again", limit=SECONDS)
    assert wait_for(lambda: sound(stack), "the ledger is sound", limit=SECONDS)


def test_a_wrong_policy_is_named(stack: Stack, tmp_path: Path) -> None:
    wrong = tmp_path / "policy.toml"
    wrong.write_text("[default]\ngrace = 3\n")
    mounted = ("-v", f"{wrong}:/compose/policy.toml:ro")
    done = stack.run("run", "--rm", "-T", "--no-deps", *mounted, "init", check=False)
    assert done.returncode == 2 and "/compose/policy.toml:2: default.grace: unknown key" in done.stderr
