"""Users of the embedded engine: it reads them from a file, and enforces their rights as a server does.

It cannot make users, roles and row policies by statements, and everything runs as its user ``default``. So each role
is tried in a process of its own, in which ``default`` has exactly the rights, the settings and the row policies of the
role. Run as ``python clickhouse_users.py FOLDER CONFIGURATION``: it reads a list of statements as JSON from standard
input, and writes the list of answers: rows, or the code of the error.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from grantledger.sinks.server_roles import Role, ServerRoles, tenant_condition, tenant_views

DATABASE = "audit"
ROLES = ServerRoles(DATABASE)
ADMINISTRATOR = "<access_management>1</access_management>"
_SETTING = re.compile(r"(\w+) = (\w+)(?: MIN (\d+))?(?: MAX (\d+))?( CONST)?")


def configuration(folder: Path, role: Role | None) -> Path:
    """Write the configuration in which ``default`` has a role, or is the administrator, and return its file."""
    name = re.sub(r"\W", "-", role.name if role is not None else "administrator")
    users, main = folder / f"{name}.users.xml", folder / f"{name}.config.xml"
    own = ADMINISTRATOR if role is None else _grants(role.rights) + _policies(role)
    users.write_text(
        f"<clickhouse><profiles><default>{_settings(role.settings if role else '')}</default></profiles>"
        f"<quotas><default/></quotas><users>{_user('default', own)}"
        f"{_user(ROLES.definer, _grants([f'SELECT ON {DATABASE}.*']))}</users></clickhouse>"
    )
    backups = f"<backups><allowed_path>{folder}</allowed_path></backups>"
    main.write_text(f"<clickhouse><users_config>{users}</users_config>{backups}</clickhouse>")
    return main


def connection(folder: Path, config: Path) -> str:
    """Return the connection string of the engine with a configuration."""
    return f"{folder}?config-file={config}"


def ask_as(role: Role | None, store: Path, work: Path, statements: Sequence[str]) -> list[Any]:
    """Run statements over a store with the rights of a role; None: of the administrator."""
    command = [sys.executable, __file__, str(store), str(configuration(work, role))]
    # Set afterwards: an embedded engine that only reads could not load the views that have settings.
    first = [one[0] for one in re.finditer(r"readonly = \d", role.settings if role is not None else "")]
    given = json.dumps([*(f"SET {one}" for one in first), *statements])
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers[len(first) :]


def _user(name: str, own: str) -> str:
    return (
        f"<{name}><password></password><networks><ip>::/0</ip></networks><profile>default</profile>"
        f"<quota>default</quota>{own}</{name}>"
    )


def _grants(rights: Sequence[str]) -> str:
    return "<grants>" + "".join(f"<query>GRANT {escape(right)}</query>" for right in rights) + "</grants>"


def _policies(role: Role) -> str:
    if role.tenant is None:
        return ""
    condition = escape(tenant_condition(role.tenant))
    filters = "".join(f"<{view}><filter>{condition}</filter></{view}>" for view in tenant_views())
    return f"<databases><{DATABASE}>{filters}</{DATABASE}></databases>"


def _settings(text: str) -> str:
    found = [one.groups() for one in _SETTING.finditer(text) if one[1] != "readonly"]
    values = "".join(f"<{name}>{value}</{name}>" for name, value, *_ in found)
    limits = ""
    for name, _, low, high, const in found:
        inner = (f"<min>{low}</min>" if low else "") + (f"<max>{high}</max>" if high else "")
        limits += f"<{name}>{inner}{'<const/>' if const else ''}</{name}>"
    return f"{values}<constraints>{limits}</constraints>"


def main() -> None:
    """Answer the statements."""
    import chdb

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the engine may print
    engine = chdb.connect(connection(Path(sys.argv[1]), Path(sys.argv[2])))
    found: list[Any] = []
    for statement in [f"USE {DATABASE}", *json.loads(sys.stdin.read())]:
        try:
            text = engine.query(statement, "JSONCompactEachRow").bytes() or b""
            found.append([json.loads(line) for line in text.splitlines()])
        except Exception as error:
            code = re.search(r"Code: (\d+)", str(error))
            found.append(int(code[1]) if code else str(error))
    engine.close()
    json.dump(found[1:], answers)
    answers.close()


if __name__ == "__main__":
    main()
