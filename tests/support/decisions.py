"""Decisions for the decision log, without a model; and a process that logs them until it is killed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from actor_risk.local import wait_until
from materialize.stream import EventLog, EventLogProducer, Record, RedisLogSettings, open_event_log
from serving.decision import (
    Decision,
    Latency,
    ModelVersion,
    Reason,
    ServiceVersion,
    StatusCounts,
    Thresholds,
)
from serving.decision_files import DecisionFiles, FileLimits
from serving.identifiers import decision_id, rfc3339
from serving.logged import FeatureLayout, LoggedDecision
from serving.shipping import LAYOUTS_TOPIC, TOPIC, Shipper
from serving.spool_writer import SpoolWriter
from tests.support.children import CHILDREN, start_child_of_tests

LAYOUT = FeatureLayout("ad_click_risk", "f1", ("ip_clicks:clicks_1h", "ip_clicks:share"), ("INT64", "DOUBLE"))
MIB = 1 << 20
START_MS = 1_795_000_000_000
DEADLINE_S = 60.0
ROUND = 4
"""Decisions that the process logs at a time."""

REASON = Reason(
    code="IP_BURST", family="ip_burst", description="many clicks of one address", actor_text="unusual traffic",
    attribution=1 / 3, feature="ip_clicks:clicks_1h", value=40.0, age_ms=1_000, status="PRESENT", features=[],
    features_rest=0.0,
)  # fmt: skip


def id_of_number(number: int, now_ms: int = START_MS) -> str:
    """The id of the decision of this number: ids of one time are in the order of their numbers."""
    return decision_id(now_ms, number.to_bytes(10, "big"))


def logged(number: int, now_ms: int = START_MS, trace_id: str = "t") -> LoggedDecision:
    """The decision of this number, made at this time."""
    answer = Decision(
        decision_id=id_of_number(number, now_ms),
        trace_id=trace_id,
        mode="live",
        model=ModelVersion("ad_click_risk", "v1"),
        service=ServiceVersion("ad_click_risk", "f1"),
        actor={"ip": "203.0.113.9", "device_id": f"device-{number}"},
        actor_known=True,
        as_of=rfc3339(now_ms),
        as_of_ms=now_ms,
        score=0.1 + 0.2,
        margin=-1 / 3,
        verdict="review",
        thresholds=Thresholds(0.3, 0.8),
        reasons=[REASON],
        base_value=-2.5,
        attributions_rest=0.1,
        output_space="log_odds",
        reference="the training set",
        feature_statuses=StatusCounts(present=2),
        features_absent=[],
        features=None,
        degraded=["event_not_published"],
        latency_ms=Latency(**dict.fromkeys(Latency.__struct_fields__, 0.125)),
    )
    return LoggedDecision(
        decision=answer, read_ms=now_ms, request={}, event=None, values=[float(number), 0.5], others={},
        statuses=[0, 0], ages_ms=[1_000, 1_000],
    )  # fmt: skip


def ids_of(entries: Sequence[LoggedDecision]) -> list[str]:
    """Their decision ids."""
    return [entry.decision.decision_id for entry in entries]


def ships_to(log: EventLog) -> Callable[[SpoolWriter], Shipper]:
    """What makes a shipper to this event log."""

    def open_producer() -> EventLogProducer:
        log.ensure_topics([TOPIC, LAYOUTS_TOPIC])
        return log.producer()

    return lambda files: Shipper(files, open_producer)


def decisions_in(log: EventLog) -> list[Record]:
    """All decisions of the event log, those of one partition in its order."""
    return log.tail(TOPIC, 1_000_000)


def id_of(record: Record) -> str:
    """The decision's id, which is the key as well."""
    found = str(msgspec.json.decode(record.value)["decision"]["decision_id"])
    assert record.key == found.encode()
    return found


class LoggingProcess:
    """A process that logs decisions, one after the other, until it is killed."""

    def __init__(self, folder: Path, writer: str, to: RedisLogSettings | None = None, first: int = 0) -> None:
        """`first`: the number of its first decision. Without `to` it ships none."""
        self._first = first
        self._answered = CHILDREN.Value("q", first, lock=False)  # a killed process would keep its lock
        self._process = start_child_of_tests(_log_for_ever, folder, writer, to, first, shared=self._answered)

    def kill(self, after: int) -> list[str]:
        """SIGKILL, once it has answered so many. The ids of those that it had answered."""
        wait_until(lambda: self._answered.value >= self._first + after, DEADLINE_S, f"{after} decisions are answered")
        self._process.kill()
        self._process.join()
        return [id_of_number(number) for number in range(self._first, self._answered.value)]


def _log_for_ever(folder: Path, writer: str, to: RedisLogSettings | None, first: int, answered: Any) -> None:
    shipper = None if to is None else ships_to(open_event_log(to))
    limits = FileLimits(folder_bytes_max=100 * MIB, file_bytes_max=MIB // 2)
    files = DecisionFiles(folder, writer, limits, lambda: START_MS, shipper=shipper)
    for number in itertools.count(first, ROUND):
        files.append([logged(number + place) for place in range(ROUND)], LAYOUT)
        answered.value = number + ROUND
