"""The file of users that docker-compose.yml gives to ClickHouse, read by the real engine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from grantledger.sinks.server_roles import ServerRoles
from grantledger.sinks.state_statements import LOOKUPS
from support.clickhouse_users import connection

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "compose" / "make_secrets.py"
STOCK = """
<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default>
<password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
<access_management>1</access_management></default></users></clickhouse>
"""
"""The users.xml of the server's package, in short. Its user asks here: an embedded engine has no other."""
PROGRAM = """
import json, sys, chdb
engine = chdb.connect(sys.argv[1])
print(json.dumps([engine.query(one, "TabSeparatedRaw").data() for one in json.load(sys.stdin)]))
"""


def test_the_engine_reads_the_users_their_rights_and_their_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("make_secrets", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "VOLUMES", tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "users.d").mkdir()
    monkeypatch.setattr(script, "write", lambda path, content, _user: path.write_text(content))
    users = script.clickhouse_users()
    assert '<default remove="remove"/>' in users
    (tmp_path / "users.d" / "grantledger.xml").write_text(users.replace('<default remove="remove"/>', ""))
    (tmp_path / "users.xml").write_text(STOCK)
    config = tmp_path / "config.xml"
    config.write_text(f"<clickhouse><users_config>{tmp_path}/users.xml</users_config></clickhouse>")

    named, writer, analyst, auditor, admin, limits = ask(
        connection(tmp_path / "data", config),
        "SELECT name FROM system.users WHERE name != 'default' AND auth_type = ['sha256_password'] ORDER BY name",
        *(f"SHOW GRANTS FOR {user}" for user in ("writer", "analyst", "auditor", "admin")),
        "SELECT setting_name, value, min, max, writability FROM system.settings_profile_elements "
        "WHERE profile_name = 'analyst' ORDER BY setting_name",
    )
    assert named.split() == ["admin", "analyst", "auditor", "writer"]
    role = ServerRoles("audit")
    assert targets(writer) == {right.rpartition(" ON ")[2] for right in role.writer.rights}
    assert targets(analyst) == {right.rpartition(" ON ")[2] for right in role.analyst.rights}
    assert set(auditor.splitlines()) == {f"GRANT {right} TO auditor" for right in role.auditor.rights}
    assert "CREATE" not in writer and "DROP" not in writer and "INSERT" not in analyst + auditor
    assert "SET DEFINER ON * TO admin" in admin and "CREATE USER" in admin
    assert [line.replace("\\N", "-").split("\t") for line in limits.splitlines()] == [
        *([name, value, "-", "-", "-"] for name, value in LOOKUPS.items()),
        ["max_execution_time", "30", "1", "300", "-"],
        ["max_memory_usage", "1073741824", "-", "-", "CONST"],
        ["readonly", "2", "-", "-", "-"],
    ]


def targets(grants: str) -> set[str]:
    """Return the tables that the grants of a user name."""
    return {line.rpartition(" ON ")[2].partition(" TO ")[0] for line in grants.splitlines()}


def ask(engine: str, *statements: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, engine]
    done = subprocess.run(
        command, input=json.dumps(statements), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found
