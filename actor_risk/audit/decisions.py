"""Reading decisions: the log that `serving.decision_files` writes (JSON lines below folders of days), or the archive
that `actor_risk.decision_sink` makes of it (Parquet below folders of days and hours).

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
import pyarrow.parquet as pq
from msgspec import Raw, Struct

from actor_risk.decision_records import Service, Version
from actor_risk.errors import ActorRiskError

PARQUET = ".parquet"
SLACK_DAYS = 1
"""A file is named for the day on which it was begun, and an as-of time may be a little ahead of the clock."""

_BATCH_ROWS = 1_024


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
            "writes (it writes none with ACTOR_RISK_DECISION_LOG_RATE=0), or to that of `actor-risk decisions sink`"
        )
    slack = timedelta(days=SLACK_DAYS)
    first, last = _day(from_ms, -slack), _day(to_ms, slack)
    found = [*folder.glob("date=*/*.jsonl"), *folder.glob(f"date=*/hour=*/[!.]*{PARQUET}")]
    below = {path: path.relative_to(folder).parts for path in found}
    return sorted((path for path in found if first <= below[path][0] <= last), key=lambda path: below[path])


def may_have(path: Path, time_ms: int) -> bool:
    """Whether a decision with an id of this time may be in a file: an archive's files are named for their span."""
    first, last, *_ = [*path.stem.split("-"), "", ""]
    return path.suffix != PARQUET or (first.isdigit() and last.isdigit() and int(first) <= time_ms <= int(last))


def log_lines(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """The lines of a file, as the server wrote them; of an archive's file those that it was made from.

    `progress` is told how many bytes of the file were read since it was told last.
    """
    if path.suffix != PARQUET:
        with path.open("rb") as file:
            for line in file:
                progress(len(line))
                yield line
        return
    told: str | None = None
    with pq.ParquetFile(path) as rows:
        for batch in rows.iter_batches(_BATCH_ROWS, columns=["layout", "record"]):
            for row in batch.to_pylist():
                if row["layout"] not in (None, told):
                    told = row["layout"]
                    yield row["layout"].encode() + b"\n"
                yield row["record"].encode() + b"\n"
    progress(path.stat().st_size)


def read_decisions(
    files: list[Path], from_ms: int, to_ms: int, lines: ReadLines, progress: Callable[[int], None]
) -> Iterator[tuple[LoggedDecision, Layout]]:
    """The decisions of from_ms ≤ as-of time < to_ms, each with the layout of its values.

    `lines` is counted up; `progress` is told how many bytes were read since it was told last.
    """
    decoder = msgspec.json.Decoder(LoggedDecision | Layout)
    hour, of_the_hour = Path(), set[str]()
    for path in files:
        layouts: dict[tuple[str, str], Layout] = {}
        if path.parent != hour:
            hour, of_the_hour = path.parent, set()
        for line in log_lines(path, progress):
            found = _decoded(decoder, line, lines)
            if isinstance(found, Layout):
                layouts[found.service, found.fingerprint] = found
            elif found is not None and from_ms <= found.decision.as_of_ms < to_ms:
                if path.suffix == PARQUET and _is_repeated(found, of_the_hour):
                    continue
                service = found.decision.service
                layout = layouts.get((service.name, service.fingerprint))
                if layout is None or len(layout.features) != len(found.values):
                    lines.unreadable += 1
                    continue
                lines.decisions += 1
                yield found, layout


def _is_repeated(found: LoggedDecision, known: set[str]) -> bool:
    """An archive may have a decision in two files of its hour."""
    if found.decision.decision_id in known:
        return True
    known.add(found.decision.decision_id)
    return False


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
