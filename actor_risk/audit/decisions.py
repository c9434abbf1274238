"""Reading the decision log that `serving.decision_files` writes: JSON lines below folders of days.

The structs say what an audit needs of a line; whatever else stands in it is passed over, so that lines of older and
newer servers can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from actor_risk.errors import ActorRiskError

SLACK_DAYS = 1
"""A file is named for the day on which it was begun, and an as-of time may be a little ahead of the clock."""


class Version(Struct, frozen=True):
    """A model by its version."""

    name: str
    version: str


class Service(Struct, frozen=True):
    """A feature service by the fingerprint of its definition."""

    name: str
    fingerprint: str


class Answer(Struct, frozen=True):
    """The decision record. `actor`: join key → value. as_of_ms: the instant that the features were read for."""

    decision_id: str
    model: Version
    service: Service
    actor: dict[str, str | int]
    as_of_ms: int
    degraded: list[str]


class ScoredEvent(Struct, frozen=True):
    """The event that was merged into the features, as JSON of its topic's schema."""

    topic: str
    content: Raw
    publishing: str


class LoggedDecision(Struct, frozen=True, tag_field="kind", tag="decision"):
    """One decision: see `serving.logged.LoggedDecision`."""

    decision: Answer
    read_ms: int
    request: dict[str, Any]
    event: ScoredEvent | None
    values: list[float | None]
    others: dict[str, Any]
    statuses: list[int]
    ages_ms: list[int]


class Layout(Struct, frozen=True, tag_field="kind", tag="features"):
    """The features of a service, in the order of a decision's values."""

    service: str
    fingerprint: str
    features: tuple[str, ...]
    kinds: tuple[str, ...]


@dataclass
class ReadLines:
    """What the log's lines were. cut_off: last lines of files whose writer was killed, or writes just now.

    unreadable: lines that are none of ours.
    """

    decisions: int = 0
    cut_off: int = 0
    unreadable: int = 0


def log_files(folder: Path, from_ms: int, to_ms: int) -> list[Path]:
    """The files that may have decisions of from_ms ≤ as-of time < to_ms, oldest first.

    Raises ActorRiskError when there is no log.
    """
    if not folder.is_dir():
        raise ActorRiskError(
            f"there is no decision log at {folder}: set ACTOR_RISK_DECISIONS, or --log, to the folder that the server "
            "writes (it writes none with ACTOR_RISK_DECISION_LOG_RATE=0)"
        )
    slack = timedelta(days=SLACK_DAYS)
    first, last = _day(from_ms, -slack), _day(to_ms, slack)
    found = [path for path in folder.glob("date=*/*.jsonl") if first <= path.parent.name <= last]
    return sorted(found, key=lambda path: (path.parent.name, path.name))


def read_decisions(
    files: list[Path], from_ms: int, to_ms: int, lines: ReadLines, progress: Callable[[int], None]
) -> Iterator[tuple[LoggedDecision, Layout]]:
    """The decisions of from_ms ≤ as-of time < to_ms, each with the layout of its values.

    `lines` is counted up; `progress` is told how many bytes were read since it was told last.
    """
    decoder = msgspec.json.Decoder(LoggedDecision | Layout)
    for path in files:
        layouts: dict[tuple[str, str], Layout] = {}
        with path.open("rb") as file:
            for line in file:
                progress(len(line))
                found = _decoded(decoder, line, lines)
                if isinstance(found, Layout):
                    layouts[found.service, found.fingerprint] = found
                elif found is not None and from_ms <= found.decision.as_of_ms < to_ms:
                    service = found.decision.service
                    layout = layouts.get((service.name, service.fingerprint))
                    if layout is None or len(layout.features) != len(found.values):
                        lines.unreadable += 1
                        continue
                    lines.decisions += 1
                    yield found, layout


def _decoded(
    decoder: msgspec.json.Decoder[LoggedDecision | Layout], line: bytes, lines: ReadLines
) -> LoggedDecision | Layout | None:
    if not line.endswith(b"\n"):
        lines.cut_off += 1
        return None
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        lines.unreadable += 1
        return None


def _day(time_ms: int, offset: timedelta) -> str:
    return f"date={datetime.fromtimestamp(time_ms / 1000, UTC) + offset:%Y-%m-%d}"
