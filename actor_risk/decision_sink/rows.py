"""One decision as a row: flat columns for queries, and the whole record as it came.

The structs say what the columns need of a record; whatever else stands in it is passed over, and kept in `record`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
import pyarrow as pa
from msgspec import Struct

from actor_risk.decision_records import Service, Version


class Reason(Struct, frozen=True):
    """What moved the margin, and how far."""

    code: str
    attribution: float


class Latency(Struct, frozen=True):
    """How long the answer took, in milliseconds."""

    total: float


class Answer(Struct, frozen=True):
    """The decision record."""

    decision_id: str
    trace_id: str
    mode: str
    model: Version
    service: Service
    actor: dict[str, str | int]
    actor_known: bool
    as_of_ms: int
    score: float
    margin: float
    verdict: str
    reasons: list[Reason]
    degraded: list[str]
    latency_ms: Latency


class Layout(Struct, frozen=True, tag_field="kind", tag="features"):
    """Which features the values of a decision are."""

    service: str
    fingerprint: str


class Entry(Struct, frozen=True, tag_field="kind", tag="decision"):
    """A line of the decision log: see `serving.logged.LoggedDecision`."""

    decision: Answer


@dataclass(frozen=True, slots=True)
class Row:
    """One decision. `record` is its line, as it came."""

    answer: Answer
    record: str

    @property
    def time_ms(self) -> int:
        """When the server was asked, by its clock: the id, a UUID of version 7, says so."""
        return UUID(self.answer.decision_id).int >> 80


COLUMNS = pa.schema(
    [
        pa.field("decision_id", pa.string(), nullable=False),  # the first: who looks for one reads its statistics
        pa.field("time", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("as_of", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("trace_id", pa.string()),
        pa.field("model", pa.string()),
        pa.field("version", pa.string()),
        pa.field("service", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("actor", pa.map_(pa.string(), pa.string())),
        pa.field("actor_known", pa.bool_()),
        pa.field("score", pa.float64()),
        pa.field("margin", pa.float64()),
        pa.field("verdict", pa.string()),
        pa.field("reasons", pa.list_(pa.struct([("code", pa.string()), ("attribution", pa.float64())]))),
        pa.field("degraded", pa.list_(pa.string())),
        pa.field("latency_ms", pa.float64()),
        pa.field("layout", pa.string()),  # names the features of `values` in the record; null where it is not known
        pa.field("record", pa.string(), nullable=False),
    ]
)

_UUID_7 = 7
_DECODER = msgspec.json.Decoder(Entry)


def row_of(value: bytes) -> Row:
    """The row of a record of the log. Raises ValueError for one that is no decision."""
    row = Row(_DECODER.decode(value).decision, value.decode())
    if UUID(row.answer.decision_id).version != _UUID_7:
        raise ValueError(f"{row.answer.decision_id!r} is no UUID of version 7")
    return row


def table_of(rows: Sequence[Row], layouts: dict[Service, str]) -> pa.Table:
    """The rows as `COLUMNS`. `layouts`: the lines that name the features of each service."""
    answers = [row.answer for row in rows]
    columns = {
        "decision_id": [answer.decision_id for answer in answers],
        "time": [row.time_ms for row in rows],
        "as_of": [answer.as_of_ms for answer in answers],
        "trace_id": [answer.trace_id for answer in answers],
        "model": [answer.model.name for answer in answers],
        "version": [answer.model.version for answer in answers],
        "service": [answer.service.name for answer in answers],
        "fingerprint": [answer.service.fingerprint for answer in answers],
        "mode": [answer.mode for answer in answers],
        "actor": [[(key, str(value)) for key, value in answer.actor.items()] for answer in answers],
        "actor_known": [answer.actor_known for answer in answers],
        "score": [answer.score for answer in answers],
        "margin": [answer.margin for answer in answers],
        "verdict": [answer.verdict for answer in answers],
        "reasons": [[msgspec.structs.asdict(reason) for reason in answer.reasons] for answer in answers],
        "degraded": [answer.degraded for answer in answers],
        "latency_ms": [answer.latency_ms.total for answer in answers],
        "layout": [layouts.get(answer.service) for answer in answers],
        "record": [row.record for row in rows],
    }
    return pa.table(columns, schema=COLUMNS)
