"""What the containers of docker-compose.yml need before they start: passwords, a certificate, owners of volumes.

The service `secrets` runs it with the volumes below /volumes, as root. `make` makes what is missing and changes nothing
else, so it runs at every `docker compose up`. `show` prints the passwords.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import secrets
import sys
from pathlib import Path

from grantledger.runtime.publishing import publish
from grantledger.runtime.settings import load_settings
from grantledger.sinks.server_roles import Role, ServerRoles

VOLUMES = Path("/volumes")
GATEWAY = Path("/data")
"""The gateway's volume: where the gateway itself has it, because its file has paths."""
GRAFANA = 472
"""The user of Grafana's image."""
_ROLES = ServerRoles("audit")
CLICKHOUSE_USERS: dict[str, Role | None] = {
    "admin": None, "writer": _ROLES.writer, "analyst": _ROLES.analyst, "auditor": _ROLES.auditor,
}  # fmt: skip
"""The users of the server and their roles. The administrator makes the tables and the views."""
USER_OF = {"ledger": "admin", "store": "writer", "sweep": "auditor", "verify": "auditor", "operator": "auditor"}
"""The ClickHouse user of each volume whose process connects to it."""
PROCESSES = ("seal", "store", "anchor", "watch", "sweep", "alert", "enforce", "verify", "operator")
_DEPLOYMENT = r"[a-z0-9.-]{1,150}"
_SETTING = re.compile(r"(\w+) = (\w+)(?: MIN (\d+))?(?: MAX (\d+))?( CONST)?")


def main() -> int:
    """Run the command in the arguments."""
    commands = {"make": make, "show": show}
    if sys.argv[1:] and sys.argv[1] in commands:
        return commands[sys.argv[1]]()
    print("usage: make_secrets.py make|show", file=sys.stderr)
    return 2


def make() -> int:
    """Make what is missing."""
    ours = pwd.getpwnam("grantledger").pw_uid
    for name in (*PROCESSES, "ledger", "policy", "anchors", "verification"):
        own(VOLUMES / name, ours, 0o755 if name == "verification" else 0o700)
    own(VOLUMES / "secrets", 0, 0o700)
    own(VOLUMES / "grafana-secrets", GRAFANA, 0o500)
    own(VOLUMES / "clickhouse-users", 0, 0o755)
    ledger = deployment()
    if ledger is None:
        return 2
    for folder in (GATEWAY, *(VOLUMES / process for process in (*PROCESSES, "ledger"))):
        write(folder / "deployment", f"{ledger}\n", ours)
    for process, user in USER_OF.items():
        settings = f'clickhouse_user = "{user}"\nclickhouse_password = "{password(f"clickhouse-{user}")}"\n'
        write(VOLUMES / process / "settings.toml", settings, ours)
    write(VOLUMES / "clickhouse-users" / "grantledger.xml", clickhouse_users(), 0, 0o644)
    write(VOLUMES / "grafana-secrets" / "admin-password", password("grafana-admin"), GRAFANA)
    write(VOLUMES / "grafana-secrets" / "clickhouse-password", password("clickhouse-analyst"), GRAFANA)
    gateway(ours)
    print(f"deployment {ledger}; the passwords: docker compose run --rm secrets show", file=sys.stderr)
    return 0


def show() -> int:
    """Print the name of the deployment and the passwords that people need."""
    print(f"deployment  {deployment()}")
    print(f"Grafana     admin    {password('grafana-admin')}")
    for user in ("analyst", "auditor"):
        print(f"ClickHouse  {user:8} {password(f'clickhouse-{user}')}")
    return 0


def own(folder: Path, user: int, mode: int) -> None:
    """Give a volume to a user."""
    os.chown(folder, user, user)
    folder.chmod(mode)


def write(path: Path, content: str, user: int, mode: int = 0o600) -> None:
    """Write a file as a whole, for one user."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        os.fchown(file.fileno(), user, user)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def password(name: str) -> str:
    """Return a password; make it the first time. It has only letters, digits, - and _."""
    path = VOLUMES / "secrets" / name
    if not path.exists():
        write(path, secrets.token_urlsafe(32), 0)
    return path.read_text("utf-8")


def deployment() -> str | None:
    """Return the name of the deployment: as given at the first start, or else a new one. None: it is not valid."""
    given, path = os.environ.get("GRANTLEDGER_DEPLOYMENT", ""), VOLUMES / "secrets" / "deployment"
    known = path.read_text("utf-8") if path.exists() else ""
    if given and not re.fullmatch(_DEPLOYMENT, given):
        print(f"GRANTLEDGER_DEPLOYMENT: {given!r} has other characters than a-z, 0-9, '.' and '-'", file=sys.stderr)
        return None
    if known and given not in ("", known):
        print(
            f"GRANTLEDGER_DEPLOYMENT is {given}, but the ledger in these volumes is that of {known}, whose name cannot "
            "change: unset it, or begin another project with --project-name",
            file=sys.stderr,
        )
        return None
    if not known:
        known = given or f"compose-{secrets.token_hex(4)}"
        write(path, known, 0)
    return known


def clickhouse_users() -> str:
    """Return the users of the server, by the SHA-256 of their passwords; the user `default` is removed."""
    users, profiles = ['<default remove="remove"/>'], []
    for user, role in CLICKHOUSE_USERS.items():
        digest = hashlib.sha256(password(f"clickhouse-{user}").encode()).hexdigest()
        rights = "<access_management>1</access_management>"
        if role is not None:
            rights = "<grants>" + "".join(f"<query>GRANT {right}</query>" for right in role.rights) + "</grants>"
        profiles.append(f"<{user}>{limits(role.settings if role else '')}</{user}>")
        users.append(
            f"<{user}><password_sha256_hex>{digest}</password_sha256_hex><profile>{user}</profile>"
            f"<quota>default</quota><networks><ip>::/0</ip></networks>{rights}</{user}>"
        )
    parts = (("profiles", profiles), ("users", users))
    inner = "".join(f"<{name}>\n" + "\n".join(lines) + f"\n</{name}>\n" for name, lines in parts)
    return f"<clickhouse>\n{inner}</clickhouse>\n"


def limits(settings: str) -> str:
    """Return the settings of a role as those of a profile in a file."""
    values, bounds = "", ""
    for name, value, low, high, const in _SETTING.findall(settings):
        values += f"<{name}>{value}</{name}>"
        bound = (f"<min>{low}</min>" if low else "") + (f"<max>{high}</max>" if high else "")
        bounds += f"<{name}>{bound}{'<const/>' if const else ''}</{name}>" if bound or const else ""
    return f"{values}<constraints>{bounds}</constraints>"


def gateway(user: int) -> None:
    """Make what `grantledger up` makes for its gateway: a certificate, sources, and for clients their tokens."""
    # This is root in a folder of a process that takes requests: it must not be led out of it.
    if links := [str(path) for path in GATEWAY.rglob("*") if path.is_symlink()]:
        sys.exit(f"the gateway's volume has a symbolic link: remove {links[0]}")
    own(GATEWAY, user, 0o700)
    settings = load_settings(GATEWAY)
    publish(settings.model_copy(update={"publish_host": "0.0.0.0", "clickhouse_url": "http://clickhouse:8123"}))  # noqa: S104
    for path in GATEWAY.rglob("*"):
        os.chown(path, user, user, follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main())
