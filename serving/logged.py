"""What the decision log keeps of one decision: the answer, and everything that is needed to compute its features again.

One JSON object per line. The field `kind` says which of the two structs below it is; readers pass over fields that they
do not know, so that fields can be added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from materialize.events import Event
from materialize.online import NUMERIC_KINDS, FeatureMatrix, FieldValue, ReadPlan
from serving.decision import Decision, Degradation
from serving.inputs import Inputs

Publishing = Literal[
    "published",  # the stream has acknowledged it
    "unconfirmed",  # it may be in the stream or not
    "failed",  # it is not in the stream
    "left_to_caller",  # the request said publish_event: false
]

EXACT_MAX = 2**53
"""Float64 tells integers apart up to here."""

FLOAT_KINDS = ("DOUBLE", "FLOAT")

_SAID_BY_JSON = (str, bytes, int, float)


class FeatureLayout(Struct, frozen=True, tag_field="kind", tag="features"):
    """The features of a service, in the order of `values`, and their Feast value types."""

    service: str
    fingerprint: str
    features: tuple[str, ...]
    kinds: tuple[str, ...]


class LoggedEvent(Struct, frozen=True):
    """The scored event, as it was merged into the features, and what became of it."""

    topic: str
    content: Event
    publishing: Publishing


class LoggedDecision(Struct, frozen=True, kw_only=True, tag_field="kind", tag="decision"):
    """One decision.

    read_ms: the server's clock when the features were read; `decision.as_of_ms` is later for an event from a clock that
    is ahead. values: all features of the service (not only the model's), each float64 by its shortest decimal form,
    which reads back to the same bits; null for none. others: what such a number cannot say, by the feature's name:
    words, bytes (in base64), integers beyond 2^53, the infinities as "inf" and "-inf". statuses: the numbers of
    `FeatureStatus`. ages_ms: -1 where nothing is known.
    """

    decision: Decision
    read_ms: int
    request: Mapping[str, Any]
    event: LoggedEvent | None
    values: list[float]
    others: dict[str, Any]
    statuses: list[int]
    ages_ms: list[int]


class ReadRow(Struct, frozen=True):
    """What was read for one decision: `materialize.online.FeatureVector` in Python's own lists."""

    values: list[float]
    statuses: list[int]
    ages_ms: list[int]
    objects: Mapping[int, FieldValue]


def read_rows(matrix: FeatureMatrix) -> list[ReadRow]:
    """The rows of a matrix."""
    rows = zip(matrix.values.tolist(), matrix.statuses.tolist(), matrix.ages_ms.tolist(), strict=True)
    exact = matrix.objects.items()
    return [ReadRow(*row, {place: column[n] for place, column in exact}) for n, row in enumerate(rows)]


def layout_of(plan: ReadPlan) -> FeatureLayout:
    """The layout of what a plan reads."""
    return FeatureLayout(plan.service, plan.fingerprint, plan.features, plan.kinds)


def logged_decision(
    decision: Decision, plan: ReadPlan, inputs: Inputs, row: ReadRow, read_ms: int, *, publish: bool
) -> LoggedDecision:
    """The entry of one decision. `publish`: whether the request left the event's publication to us."""
    scored = inputs.scored
    return LoggedDecision(
        decision=decision,
        read_ms=read_ms,
        request=inputs.request,
        event=None if scored is None else LoggedEvent(scored.topic, scored.event, _publishing(decision, publish)),
        values=row.values,
        others=_others(plan, row.objects, row.values),
        statuses=row.statuses,
        ages_ms=row.ages_ms,
    )


def _publishing(decision: Decision, publish: bool) -> Publishing:
    told: dict[Degradation, Publishing] = {
        "event_not_published": "failed",
        "event_publish_unconfirmed": "unconfirmed",
    }
    found = [told[flag] for flag in decision.degraded if flag in told]
    return found[0] if found else "published" if publish else "left_to_caller"


def _others(plan: ReadPlan, objects: Mapping[int, FieldValue], values: list[float]) -> dict[str, Any]:
    others = {}
    for place, value in objects.items():
        if value is not None and plan.kinds[place] not in FLOAT_KINDS and not _fits_a_float(value, plan.kinds[place]):
            others[plan.features[place]] = value if isinstance(value, _SAID_BY_JSON) else value.SerializeToString()
    if math.inf in values or -math.inf in values:
        others |= {plan.features[place]: str(value) for place, value in enumerate(values) if math.isinf(value)}
    return others


def _fits_a_float(value: FieldValue, kind: str) -> bool:
    return kind in NUMERIC_KINDS and isinstance(value, (int, float)) and -EXACT_MAX <= value <= EXACT_MAX
