"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.on_time import short_policy
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker


@pytest.fixture(scope="module")
def pipeline(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    """A pipeline that seals, and judges under a policy of short times. Files with other needs have their own."""
    running = short_policy(broker, make_pipeline, tmp_path_factory)
    running.start("seal", "watch")
    return running
