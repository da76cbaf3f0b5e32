"""Fixtures: a real Kafka, a pipeline of real processes, the folder of real records."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import chdb  # noqa: F401 - while it loads, other threads can crash
import hypothesis
import pytest
import structlog

from grantledger.runtime.broker import LocalBroker
from support.cases import Cases
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker, shared_broker, shared_folder

# The same examples every time, and no time limit per example. GRANTLEDGER_TEST_SLOW tries more.
hypothesis.settings.register_profile("quick", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.register_profile("slow", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("slow" if os.environ.get("GRANTLEDGER_TEST_SLOW") else "quick")

LONGEST = (
    "test_epochs_opened", "test_enforce", "test_grants_command", "test_store_faults", "test_up", "test_resume_stops",
    "test_watch", "test_broker_restarts", "test_watch_standby", "test_command_processes", "test_commands",
    "test_access_views", "test_on_time", "test_sweep", "test_kills", "test_tamper_command", "test_watch_clocks",
    "test_two_of_a_kind", "test_nothing_there", "test_enforce_kills", "test_alert_process", "test_store_sandbox",
    "test_tamper_rows", "test_endpoint_availability", "test_gateway_kills", "test_on_time_faults",
    "test_watch_sealed_log", "test_follow_kills", "test_bad_input", "test_lifecycle_shards", "test_states",
    "test_endpoint_limits", "test_enforce_postgresql", "test_hostile_rows", "test_tamper_columns",
    "test_client_kafka", "test_erasure", "test_tamper_definitions", "test_broker", "test_server_mode",
    "test_planted_faults", "test_anchor_stops", "test_sources_command", "test_topic_prefix",
)  # fmt: skip
"""The files that take longest, the longest first: a file that starts last must not be waited for alone."""
EXTENDED = (
    "test_backup", "test_broker", "test_broker_restarts", "test_dashboards", "test_doctor", "test_endpoint_compression",
    "test_endpoint_availability", "test_endpoint_formats", "test_endpoint_limits", "test_enforce_kills",
    "test_epochs_opened", "test_follow_kills", "test_gateway_kills", "test_hostile_rows", "test_lifecycle_shards",
    "test_nothing_there", "test_on_time_faults", "test_policy_names", "test_questions", "test_resume_stops",
    "test_server_mode", "test_server_roles", "test_silences", "test_source_health", "test_states",
    "test_tamper_columns", "test_tamper_definitions", "test_topic_prefix", "test_two_of_a_kind", "test_watch_clocks",
    "test_watch_sealed_log", "test_watch_standby", "test_wire_examples",
)  # fmt: skip
"""The files of ``make test-extended``: faults and questions beyond the main road, so that ``make test`` stays short."""
_numbers = itertools.count(1)
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "test")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the longer campaigns unless they are wanted, and run quick tests first.

    If files are distributed over several processes, the longest come first, and quick ones fill the gaps at the end.
    """
    for item in items:
        if item.path.stem in EXTENDED and item.path.parent.name != "unit":
            item.add_marker("extended")
    if not os.environ.get("GRANTLEDGER_TEST_SLOW"):
        reason = pytest.mark.skip(reason="a longer campaign: run with GRANTLEDGER_TEST_SLOW=1")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(reason)
    if "docker" not in str(config.getoption("markexpr")):
        reason = pytest.mark.skip(reason="needs a Docker engine and our image: make test-docker")
        for item in items:
            if "docker" in item.keywords and item.path.parent.name == "docker":
                item.add_marker(reason)
    folders = ["unit", "stack", "fault", "docker"]
    if hasattr(config, "workerinput"):  # pytest-xdist
        folders.reverse()
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: (places.get(item.path.stem, len(places)), folders.index(item.path.parent.name)))
    else:
        items.sort(key=lambda item: folders.index(item.path.parent.name))


def pytest_collection_finish() -> None:
    """Leave thousands of collected tests out of garbage collection: it takes a tenth of the unit tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _logs_of_each_test_alone() -> Iterator[None]:
    """A test may send the logs of this process to a stream that is closed after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real records, which are not ours to ship."""
    return _existing(_samples_folder(), "real records")


@pytest.fixture(scope="session")
def cases() -> Cases:
    """The cases that failed in the field, which are not ours to ship."""
    return Cases(_existing(_samples_folder().parent / "cases", "cases"))


def _samples_folder() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "samples"
    return Path(os.environ.get("GRANTLEDGER_SAMPLES", default))


def _existing(folder: Path, content: str) -> Path:
    """Return a folder. A test without it is skipped, except under CI, where it fails."""
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"the folder of {content} is missing: {folder}")
        pytest.skip(f"the folder of {content} is missing: {folder} (GRANTLEDGER_SAMPLES)")
    return folder


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """The broker of all test processes. Tests that stop it use ``own_broker``."""
    with shared_broker(shared_folder(tmp_path_factory)) as running:
        yield running


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker for one module, which may stop it."""
    with LocalBroker(tmp_path_factory.mktemp("own-broker")) as running:
        yield running


@pytest.fixture(scope="module")
def make_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pipeline]]:
    """Make pipelines over a broker, by its address; all are stopped at the end of the module.

    Each has its own deployment name and topic prefix: topics, consumer groups and transactional ids carry them.
    """
    made: list[Pipeline] = []

    def make(bootstrap_servers: str, environment: dict[str, str] | None = None) -> Pipeline:
        name = f"{_WORKER}-{next(_numbers)}"
        pipeline = Pipeline(
            bootstrap_servers,
            tmp_path_factory.mktemp("data"),
            environment,
            deployment=f"{name}.example",
            topic_prefix=f"{name}-",
        )
        pipeline.make_topics()
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        pipeline.stop()
