"""The producers of docs/examples on a real broker: each sends the event of a vector, which is sealed and stored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grantledger.console.address import address_file
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_signature import is_signed_by, key_id_of, signature_in, signed_bytes
from grantledger.producers.event_check import check_event, check_place
from grantledger.producers.event_json import event_to_json
from support.pipeline import WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker
from support.vectors import FOLDER, PRIVATE_KEY
from support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((FOLDER / "events.json").read_text("utf-8"))["vectors"]
[VECTOR] = [one for one in VECTORS if one["name"] == "activation"]
SIGNER = LocalSigner(Ed25519PrivateKey.from_private_bytes(PRIVATE_KEY))
MINUTES = 8 * 60.0
"""Until a toolchain has loaded and compiled its packages, the first time."""


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    made = make_pipeline(broker.bootstrap_servers, WITHOUT_STATES)
    made.start("seal", "store")
    wait_for(address_file(made.data_dir).exists, "the store answers")
    return made


def python(_folder: Path) -> list[str]:
    return [sys.executable, "send.py"]


def go(folder: Path) -> list[str]:
    needed("go")
    loaded(folder, "go", "mod", "download")
    built(folder, "go", "build", "-o", "send", ".")
    return ["./send"]


def typescript(folder: Path) -> list[str]:
    needed("node", "npm")
    loaded(folder, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
    built(folder, "npm", "run", "build")
    return ["node", "send.js"]


def java(folder: Path) -> list[str]:
    needed("java", "javac", "mvn")
    loaded(folder, "mvn", "-q", "-B", "dependency:build-classpath", "-Dmdep.outputFile=classpath")
    return ["java", "-cp", (folder / "classpath").read_text("utf-8"), "Send.java"]


def needed(*programs: str) -> None:
    if missing := [one for one in programs if shutil.which(one) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def loaded(folder: Path, *command: str) -> None:
    """Load the packages that an example needs; without them the test is skipped."""
    done = run(folder, command)
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")


def built(folder: Path, *command: str) -> None:
    done = run(folder, command)
    assert done.returncode == 0, done.stdout + done.stderr


def run(
    folder: Path, command: tuple[str, ...] | list[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=MINUTES, check=False
    )


LANGUAGES: dict[str, Callable[[Path], list[str]]] = {
    one.__name__: one for one in (python, go, typescript, java)
}  # fmt: skip


@pytest.mark.timeout(2 * MINUTES)
@pytest.mark.parametrize(
    "language", [name if name == "python" else pytest.param(name, marks=pytest.mark.slow) for name in LANGUAGES]
)
def test_an_example_sends_the_event_of_the_vector(language: str, pipeline: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / language
    shutil.copytree(ROOT / "docs" / "examples" / language, folder)
    shutil.copy(ROOT / "schemas" / "released" / "event.4.avsc", folder / "event.avsc")
    (folder / "key.pem").write_bytes(SIGNER.to_pem(None))
    command = LANGUAGES[language](folder)
    before = len(stored(pipeline))
    environment = pipeline.environment | {
        "KAFKA": pipeline.bootstrap_servers,
        "TOPIC_PREFIX": pipeline.cluster.topic_prefix,
        "DEPLOYMENT": pipeline.deployment,
        "SOURCE_KEY": "key.pem",
        "SOURCE_KEY_ID": key_id_of(SIGNER.public_key).hex(),
    }
    sent = run(folder, command, environment)
    assert (sent.returncode, sent.stdout.strip()) == (0, VECTOR["event"]["event_id"]), sent.stderr
    row = wait_for(lambda: stored(pipeline)[before:], "the event is stored")[0]
    assert (row["event_id"], row["decode_error"]) == (VECTOR["event"]["event_id"], "")
    key, value = bytes.fromhex(row["key"]), bytes.fromhex(row["value"])
    found = check_event(value, language)
    check_place(found, 1, topic="access.lifecycle", key=key.decode())
    assert found.event is not None and found.problems == []
    assert found.event.expires_at is not None
    assert (found.event.expires_at - found.event.occurred_at).total_seconds() == 3600
    for name in ("source", "resource", "entitlement", "grant_id", "grant_id_kind", "request_id", "outcome", "tenant"):
        assert event_to_json(found.event)[name] == VECTOR["event"][name], name
    signature = signature_in(bytes.fromhex(row["headers"]))
    message = signed_bytes(pipeline.deployment, "access.lifecycle", key, value)
    assert signature is not None and is_signed_by(SIGNER.public_key, signature, message)


def stored(pipeline: Pipeline) -> list[dict[str, Any]]:
    return pipeline.query(
        "SELECT event_id, decode_error, hex(key) AS key, hex(value) AS value, hex(headers) AS headers FROM entries "
        f"WHERE origin = '{pipeline.origin('access.lifecycle')}' ORDER BY index"
    )
