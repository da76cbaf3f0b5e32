"""The Prometheus rules: checked and tested with promtool, about metrics that our processes export."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from grantledger.sinks.alerts.config import OWN_LABELS
from support.alertmanager import programs_or_skip

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "monitoring"
RULES = (FOLDER / "prometheus-rules.yml").read_text("utf-8")
TESTS = (FOLDER / "prometheus-rules-test.yml").read_text("utf-8")
SCRIPT = FOLDER / "verify-textfile.sh"
EXPORTING = (
    "processors.metrics", "processors.watch.metrics", "sinks.metrics", "sinks.alerts.metrics", "enforcers.metrics",
    "processors.sweep.sweeper", "console.metrics", "producers.follow.metrics",
    "producers.gateway.metrics",
)  # fmt: skip


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [programs_or_skip()["promtool"], *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bgrantledger_[a-z_]+", text))


def exported_metrics() -> set[str]:
    """Return the metrics of all processes, and that of verify-textfile.sh."""
    for module in EXPORTING:
        importlib.import_module(f"grantledger.{module}")
    own = {
        name + ("_total" if family.type == "counter" else "") for family in REGISTRY.collect() for name in [family.name]
    }
    return own | metrics_in(SCRIPT.read_text("utf-8"))


def test_the_rules_are_rules() -> None:
    done = promtool("check", "rules", FOLDER / "prometheus-rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{RULES.count('- alert:')} rules found" in done.stdout + done.stderr


def test_prometheus_accepts_its_configuration() -> None:
    done = promtool("check", "config", FOLDER / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_groups_by_person_and_tool() -> None:
    file = FOLDER / "alertmanager.yml"
    done = subprocess.run([programs_or_skip()["amtool"], "check-config", file], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [labels] = re.findall(r"group_by: \[(.*)\]", file.read_text("utf-8"))
    assert set(labels.split(", ")) == {"person", "tool"} <= set(OWN_LABELS)


def test_the_rules_fire_when_they_must_and_only_then() -> None:
    done = promtool("test", "rules", FOLDER / "prometheus-rules-test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_rules_can_fail(tmp_path: Path) -> None:
    blunt = RULES.replace(
        "(grantledger_watch_judged_until_seconds) > 120", "(grantledger_watch_judged_until_seconds) > 9e9"
    )
    assert blunt != RULES
    (tmp_path / "prometheus-rules.yml").write_text(blunt)
    (tmp_path / "prometheus-rules-test.yml").write_text(TESTS)
    assert promtool("test", "rules", tmp_path / "prometheus-rules-test.yml").returncode != 0


def test_each_metric_in_the_rules_is_exported_and_each_alert_is_tested() -> None:
    expressions = "\n".join(
        line for line in RULES.splitlines() if not line.lstrip().startswith(("#", "summary", "desc"))
    )
    used = {name for name in metrics_in(expressions) if name not in ("grantledger_seal",)}
    assert used - exported_metrics() == set()
    for alert in re.findall(r"- alert: (\w+)", RULES):
        if not alert.endswith("Absent"):  # these are counted together
            stem = re.sub(r"(Stalled|Blind|Lag)$", "", alert)
            assert alert in TESTS or f"{stem}(" in TESTS, alert


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_verification_leaves_its_result_for_the_scrape(tmp_path: Path, code: int) -> None:
    program = tmp_path / "grantledger"
    program.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/arguments"\nexit {code}\n')
    program.chmod(0o755)
    file = tmp_path / "grantledger_verify.prom"
    done = subprocess.run(
        [shutil.which("sh") or "/bin/sh", SCRIPT, file, "--from", "kafka"],
        env={"GRANTLEDGER": str(program), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert (tmp_path / "arguments").read_text() == "verify --from kafka\n"
    text = file.read_text()
    assert f"\ngrantledger_verify_exit_code {code}\n" in text
    assert {path.name for path in tmp_path.iterdir()} == {"grantledger", "arguments", file.name}
    checked = promtool("check", "metrics", stdin=text)
    assert checked.returncode == 0, checked.stdout + checked.stderr
