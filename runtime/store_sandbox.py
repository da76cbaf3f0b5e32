"""The sandbox of the process that serves SQL: a hole in the SQL gate must not reach keys, secrets or other processes.

It may write the store, its temporary folder and the spool of the query log, and read programs, libraries, certificates
and time zones. It may connect to the ports of the brokers only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from confluent_kafka import KafkaException

from ..kafka.cluster import Cluster
from .landlock import READ, WRITE, FileAccess, PortAccess
from .remembered_endpoint import DEFAULT_PORT
from .settings import Settings

# The environment of the process: nothing else reaches it, above all no setting.
KEPT_VARIABLES: Final = re.compile(
    r"PATH|HOME|USER|LANG|LANGUAGE|LC_\w+|TZ|TZDIR|LD_LIBRARY_PATH|PYTHON\w+|SSL_CERT_FILE|SSL_CERT_DIR|VIRTUAL_ENV"
    r"|MALLOC_\w+|OMP_NUM_THREADS|OPENBLAS_\w+"
)
_PROGRAMS: Final = FileAccess.EXECUTE | READ
_READ_SYSTEM = (
    "/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/ssl", "/etc/pki",
    "/etc/ca-certificates", "/etc/crypto-policies", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/localtime",
    "/etc/timezone", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf",
    "/etc/services", "/etc/protocols", "/dev/urandom", "/dev/random", "/dev/zero", "/sys/devices/system",
    "/sys/fs/cgroup", "/sys/kernel/mm", "/proc/sys", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/version",
)  # fmt: skip
# Of the process itself: never its environment, memory or open files. A file that the kernel forgets meanwhile becomes
# unreadable, which only costs a metric. For `auxv`, see `store_program`.
_READ_SELF = ("auxv", "stat", "statm", "status", "limits", "cgroup", "mountinfo", "maps")
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
# Options of librdkafka that name files with secrets, and those that take the content instead.
_CONTENT_OPTION: Final = {"ssl.key.location": "ssl.key.pem", "ssl.certificate.location": "ssl.certificate.pem"}
_FILE_OPTION: Final = re.compile(r"\.location$|keytab|\.file$")
_RUN_FOLDER: Final = (
    FileAccess.WRITE_FILE
    | FileAccess.TRUNCATE
    | FileAccess.MAKE_REG
    | FileAccess.REMOVE_FILE
    | FileAccess.READ_DIR
)  # fmt: skip


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the process needs; settings and secrets are not among them."""
    return {name: value for name, value in environment.items() if KEPT_VARIABLES.fullmatch(name)}


def without_key_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of librdkafka with the content of key files in place of their names. Raises OSError."""
    contents = {
        _CONTENT_OPTION[name]: Path(str(value)).read_text("utf-8")
        for name, value in options.items()
        if name in _CONTENT_OPTION
    }
    return {name: value for name, value in options.items() if name not in _CONTENT_OPTION} | contents


def file_rules(settings: Settings) -> list[tuple[Path, FileAccess]]:
    """Return what the process may do with which files."""
    data, store = settings.data_dir.resolve(), settings.store_path.resolve()
    secret = [data, settings.private_key_path.resolve().parent]
    secret += [path.resolve() for path in (settings.config, settings.key_passphrase_file) if path is not None]
    package = Path(__file__).parents[1]
    programs = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent, *_rooms(package)]
    # Not all of sys.path: `python -m` puts the working directory there, which may be a home folder.
    programs += [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    programs += [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    programs += map(Path, _LIBRARIES)
    named = [str(value) for name, value in settings.kafka_options.items() if _FILE_OPTION.search(name)]
    named += [os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ]
    own = Path("/proc") / str(os.getpid())
    return [
        *rules_without(programs, secret),
        (package, FileAccess.READ_DIR),
        *((Path(path), READ) for path in (*_READ_SYSTEM, *named)),
        *((own / name, FileAccess.READ_FILE) for name in _READ_SELF),
        (Path("/dev/null"), READ | FileAccess.WRITE_FILE),
        (store, WRITE),
        (store.parent / f"{store.name}.tmp", WRITE),
        (settings.query_spool_path.resolve(), WRITE),
        (store.parent / f"{store.name}.lock", FileAccess.READ_FILE | FileAccess.WRITE_FILE),
        (data / "run", _RUN_FOLDER),
    ]


def _rooms(package: Path) -> list[Path]:
    """Return the folders and files of our package. Its own folder may be a repository with other files."""
    return [package / "__init__.py", *(init.parent for init in package.glob("*/__init__.py"))]


def rules_without(folders: Iterable[Path], secret: Iterable[Path]) -> Iterator[tuple[Path, FileAccess]]:
    """Yield rules that open folders of programs except the secret folders and files in them.

    A rule opens everything beneath a folder, so a folder above a secret one is opened by its other members. Only names
    are visible in it.
    """
    hidden = list(secret)
    for folder in dict.fromkeys(path.resolve() for path in folders):
        if any(folder == one or one in folder.parents for one in hidden) or folder == Path("/"):
            continue
        if not any(folder in one.parents for one in hidden):
            yield folder, _PROGRAMS
            continue
        yield folder, FileAccess.READ_DIR
        with suppress(OSError):
            members = [path for path in folder.iterdir() if not path.is_symlink()]
            yield from rules_without([path for path in members if path.resolve() not in hidden], hidden)


def port_rules(settings: Settings, remembered: int | None) -> dict[int, PortAccess]:
    """Return what the process may do with which TCP ports. Asks the brokers for the ports that they advertise."""
    sql = settings.sql_port if settings.sql_port is not None else DEFAULT_PORT
    outside = int(settings.sql_listen.rpartition(":")[2] or 0)
    ports = dict.fromkeys({0, settings.metrics_port, sql, remembered or 0, outside}, PortAccess.BIND)
    for port in _broker_ports(settings):
        ports[port] = ports.get(port, PortAccess(0)) | PortAccess.CONNECT
    return ports


def _broker_ports(settings: Settings) -> set[int]:
    servers = str(settings.kafka_client_options()["bootstrap.servers"]).split(",")
    given = [server.rpartition(":")[2] for server in servers]
    ports = {int(port) if port.isdigit() else 9092 for port in given}
    for value in settings.kafka_options.values():
        if "://" in str(value):  # an OAuth server
            url = urlsplit(str(value))
            ports.add(url.port or (443 if url.scheme == "https" else 80))
    with suppress(KafkaException):
        brokers = Cluster(settings.kafka_client_options()).admin.list_topics(timeout=5).brokers
        ports |= {broker.port for broker in brokers.values()}
    return ports
