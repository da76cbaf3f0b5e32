"""Fixtures of the tests with containers: the engine, the images, and a network of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.containers import OURS

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = {"kafka": "grantledger-kafka:dev", "clickhouse": "grantledger-clickhouse:dev"}


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The client of a Docker engine that runs."""
    docker = pytest.importorskip("docker")
    from testcontainers.core.config import testcontainers_config

    # Its reaper is one more image. Our fixtures remove what they made.
    testcontainers_config.ryuk_disabled = True
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: Any) -> Callable[[str], str]:
    """Return the name of an image that the engine has or can pull; a test that needs another is skipped."""
    import docker

    def had(name: str) -> str:
        try:
            engine.images.get(name)
        except docker.errors.ImageNotFound:
            if name == OURS or name in STAND_INS.values():
                pytest.skip(f"there is no image {name}: make test-docker builds it")
            try:
                engine.images.pull(name)
            except docker.errors.APIError as error:
                pytest.skip(f"the image {name} cannot be had: {error.explanation}")
        return name

    return had


def official(service: str) -> str:
    """Return the image that docker-compose.yml names."""
    return str(yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"][service]["image"])


@pytest.fixture(scope="module", params=["official", "stand-in"])
def servers(request: pytest.FixtureRequest, image: Callable[[str], str]) -> dict[str, str]:
    """The images of Kafka and ClickHouse."""
    image(OURS)
    return {name: image(official(name) if request.param == "official" else STAND_INS[name]) for name in STAND_INS}
