"""Rounds of ``kill -9`` under load: each at a random point of the start or of the work of one process.

A round waits for progress, not for time, so that the points do not depend on the speed of the machine.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from grantledger.runtime.broker import LocalBroker
from grantledger.schemas.topics import COMMANDS_TOPIC
from grantledger.sinks.file_target import read_anchor_file

from .load import Load
from .on_time import recorded
from .oracle import committed_records
from .pipeline import Pipeline, samples
from .waiting import wait_for

PROGRESS = {
    "seal": ("grantledger_log_size_entries",),
    "store": ("grantledger_stored_log_size_entries",),
    "anchor": ("grantledger_anchors_total",),
    "watch": ("grantledger_watch_judged_until_seconds", "grantledger_watch_findings_total"),
    "enforce": ("grantledger_enforce_outcomes_total",),
}
"""Metrics that change when a process makes progress."""
BROKER_EVERY = 20
"""Rounds from one kill of the broker to the next."""
WORK_EVERY = 5.0
"""Seconds after which a round that takes long gets more work: the enforcer progresses only if access is overdue."""
_TICK = os.sysconf("SC_CLK_TCK")


class KillCampaign:
    """Kills processes of a running pipeline, and restarts them as a supervisor does.

    In each cycle, every process is killed once, when it has made some progress. Some are killed again while they start.

    Attributes:
        killed: the number of kills, by process.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        victims: Sequence[str],
        seed: int,
        broker: LocalBroker | None = None,
        give_work: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a running pipeline. ``give_work`` is called before each round, and again while one takes long."""
        self._pipeline, self._victims, self._broker, self._give_work = pipeline, victims, broker, give_work
        self._draw = random.Random(seed)
        self.killed: Counter[str] = Counter()

    def run(self, rounds: int, load: Load) -> None:
        """Kill a process in each round, and at last wait until all have made progress again."""
        until_broker = BROKER_EVERY // 2
        while (left := rounds - self.killed.total()) > 0:
            if self._broker is not None and self.killed.total() >= until_broker:
                until_broker += BROKER_EVERY
                print(f"{self.killed.total()} of {rounds} kills, {len(load.sent)} records", flush=True)
                self._broker.kill()
                self._broker.start()
                self.killed["kafka"] += 1
            moments = {victim: self._progress(victim, self._draw.choice((1, 1, 2, 4))) for victim in self._victims}
            while moments and left > 0:
                victim = self._wait_for_first(moments)
                del moments[victim]
                self._kill(victim)
                if self._draw.random() < 0.3 and left > 1:
                    self._wait_for_first({victim: self._in_its_start(victim)})
                    self._kill(victim)
                assert not load.failures, load.failures[:3]
                assert load.running, "the load has ended"
                left = rounds - self.killed.total()
        moments = {victim: self._progress(victim, 2) for victim in self._victims}
        while moments:
            del moments[self._wait_for_first(moments)]

    def _kill(self, victim: str) -> None:
        self._pipeline.kill(victim)
        log = self._pipeline.log(victim)
        assert "Traceback" not in log, log[-3000:]
        self._pipeline.start(victim)
        self.killed[victim] += 1

    def _wait_for_first(self, moments: Mapping[str, Callable[[], bool]]) -> str:
        """Return the first process of which the moment has come. Restart processes that end meanwhile."""

        given = float("-inf")

        def first() -> str | None:
            nonlocal given
            if time.monotonic() > given + WORK_EVERY:
                self._give_work()
                given = time.monotonic()
            self._pipeline.restart_failed()
            for name, child in self._pipeline.children.items():
                assert child.gave_up is None, f"{name} gave up: {child.gave_up}"
            return next((victim for victim, moment in moments.items() if moment()), None)

        return wait_for(first, f"progress of {', '.join(moments)}", limit=240, pause=0.05) or ""

    def _in_its_start(self, victim: str) -> Callable[[], bool]:
        """Return whether a process has used some processor time, or has ended."""
        seconds = self._draw.uniform(0.05, 2.0)

        def used() -> bool:
            pid = self._pipeline.children[victim].pid
            return pid is None or cpu_seconds(pid) >= seconds

        return used

    def _progress(self, victim: str, steps: int) -> Callable[[], bool]:
        """Return whether a metric of progress has changed so often."""
        metric = self._draw.choice(PROGRESS[victim])
        last: float | None = None
        seen = 0

        def progressed() -> bool:
            nonlocal last, seen
            found = samples(self._pipeline.children[victim], limit=0)
            value = sum(value for (name, _), value in found.items() if name == metric)
            if found:
                seen += last is not None and value != last
                last = value
            return seen >= steps

        return progressed


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def assert_nothing_twice(pipeline: Pipeline, late: Iterable[str] = ()) -> int:
    """Check that no finding and no command was published twice; return the number of findings of the pipeline.

    Args:
        late: grants that are overdue: each must have one finding, one command and one confirmed removal.
    """
    own = [one for one in recorded(pipeline) if one.system.startswith("grantledger-")]
    events = Counter((one.system, one.event_type, one.datum["event_id"]) for one in own)
    assert [event for event, times in events.items() if times > 1] == [], "one event was published twice"
    is_open: dict[tuple[object, ...], bool] = {}
    for one in own:
        finding = (one.datum["tenant"], one.rule, one.key, str(one.datum["grant_source"]))
        if one.event_type in ("finding.opened", "finding.resolved"):
            opens = one.event_type == "finding.opened"
            assert is_open.get(finding, False) is not opens, f"{one.event_type} twice in a row: {finding}"
            is_open[finding] = opens
    commanded = Counter(one.key for one in recorded(pipeline, COMMANDS_TOPIC))
    assert [key for key, times in commanded.items() if times > 1] == [], "one command was sent twice"
    about = Counter((one.key, one.event_type) for one in own if one.rule in ("overdue", ""))
    for name in late:
        once = {what: about[name, what] for what in ("finding.opened", "revoke.requested", "finding.resolved")}
        assert set(once.values()) == {1} and commanded[name] == 1, (name, once, commanded[name])
        assert about[name, "revoke.confirmed"] == 1 and about[name, "revoke.failed"] == 0, (name, about)
    return sum(one.event_type == "finding.opened" for one in own)


def assert_anchors_once(pipeline: Pipeline) -> int:
    """Check that every anchor is once in Kafka, in ClickHouse and in the file; return their number."""
    committed = len(committed_records(pipeline.cluster, ["access.anchors"])["access.anchors", 0])
    count = lambda: pipeline.query("SELECT count() AS c FROM anchors")[0]["c"]  # noqa: E731
    wait_for(lambda: count() >= committed, "the anchors are stored")
    indices = [anchor.index for anchor in read_anchor_file(pipeline.data_dir / "anchors.jsonl")]
    assert indices == sorted(set(indices)), "an anchor was published twice"
    rows = pipeline.query("SELECT toUInt32(index) AS i FROM anchors ORDER BY index")
    assert [row["i"] for row in rows] == list(range(len(rows)))  # more than before: anchoring goes on
    return committed
