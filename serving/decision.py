"""The contract of `POST /v1/score`: what a caller sends, and the decision record that it gets.

These types are the single source of the decoder, the encoder and the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct, field

Explain = Literal["none", "top", "full"]
Mode = Literal["live", "canary", "shadow"]
Role = Literal["live", "canary", "shadow", "fallback"]
Verdict = Literal["allow", "review", "block"]
Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
Degradation = Literal[
    "rows_refused",  # stored rows that could not be read: their features are NOT_FOUND
    "on_demand_failed",  # the code of an on-demand view failed: its features are NULL_VALUE
    "event_not_merged",  # a view could not use the event: it is not in that view's features
    "windows_inexact",  # the as-of time is older than what some row still holds in full
    "event_not_published",  # the event is not in the stream: send it again
    "event_publish_unconfirmed",  # the stream did not acknowledge the event in time: it may be there or not
    "explanation_skipped",  # there was no time to explain the score before the request's deadline
    "features_partial",  # some of the stored features could not be read, for a shard of the store is away: NOT_FOUND
    "features_defaulted",  # the features could not be read, or not in time: the score is that of an unknown actor
    "fallback_model",  # neither that: another model answered, which the policy names, without any stored feature
    "fallback_score",  # neither that: the score is the policy's, and no model's
    "answer_not_kept",  # the idempotency key could not be kept: the same request sent again is answered anew
]

TRACE_ID_PATTERN = "^[0-9A-Za-z._:-]{1,128}$"


def no_event() -> Raw:
    """The JSON of a request's event when there is none."""
    return Raw(b"null")


BATCH_MAX = 1_000
"""Actors that one request may ask about."""

ModelName = Annotated[str, Meta(min_length=1, max_length=128, description="name of a served model, see /v1/models")]
ExplainField = Annotated[
    Explain, Meta(description="`top`: the strongest reasons; `full`: every feature as well; `none`: score only")
]
PublishField = Annotated[
    bool, Meta(description="false when the caller writes the event to the stream; it counts once either way")
]


class Question(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How risky is this actor now, with this event?"""

    entities: Annotated[
        dict[str, Raw],
        Meta(description="join key → value; keys that the event carries may be left out"),
    ] = field(default_factory=dict)
    event: Annotated[Raw, Meta(description="the event to be scored; it is counted in the features")] = field(
        default_factory=no_event
    )
    event_topic: Annotated[
        str | None, Meta(description="the topic whose schema the event has; told from its fields when left out")
    ] = None
    request: Annotated[
        dict[str, Raw],
        Meta(description="values known only now; those that are left out come from the event, or are null"),
    ] = field(default_factory=dict)
    trace_id: Annotated[
        Annotated[str, Meta(pattern=TRACE_ID_PATTERN)] | None,
        Meta(description="comes back in the answer; else the header `traceparent` gives it, else it is made"),
    ] = None


class ScoreRequest(Question, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question to one model."""

    model: ModelName
    explain: ExplainField = "top"
    publish_event: PublishField = True


class BatchRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Many questions to one model."""

    model: ModelName
    explain: ExplainField = "top"
    publish_event: PublishField = True
    requests: Annotated[list[Question], Meta(min_length=1, max_length=BATCH_MAX)]


class ModelVersion(Struct, frozen=True):
    """Which model answered."""

    name: str
    version: str


class ServiceVersion(Struct, frozen=True):
    """Which features it read: the Feast feature service, and the fingerprint of its definition."""

    name: str
    fingerprint: str


class Thresholds(Struct, frozen=True):
    """A score of at least `block` is blocked, else of at least `review` reviewed, else allowed."""

    review: float
    block: float


class ReasonFeature(Struct, frozen=True, kw_only=True):
    """One feature inside a reason, as it was read."""

    feature: Annotated[str, Meta(description="view:feature")]
    description: str
    value: float | None
    age_ms: Annotated[int | None, Meta(description="as-of time minus the time of the newest event in the value")]
    status: Status
    attribution: Annotated[float, Meta(description="share of the margin, in the output space")]
    standard_error: Annotated[
        float | None, Meta(description="of the attribution, when it is estimated; null when it is exact")
    ] = None


class Reason(Struct, frozen=True, kw_only=True):
    """A family of features that moved the margin: up with a positive attribution, down with a negative one.

    `feature`, `value`, `age_ms` and `status` are those of the strongest feature, the first of `features`. `actor_text`
    may be shown to the actor, and nothing else of this record.
    """

    code: Annotated[str, Meta(description="stable public identifier")]
    family: Annotated[str, Meta(description="name of the reason; the feature's own name where it is one by itself")]
    description: Annotated[str, Meta(description="for the people who review decisions")]
    actor_text: Annotated[str, Meta(description="may be shown to the actor: no values, no thresholds, nobody else")]
    attribution: Annotated[float, Meta(description="sum of the family's shares of the margin, in the output space")]
    standard_error: Annotated[
        float | None,
        Meta(description="of an estimated attribution, an upper bound: the sum of the family's; null when it is exact"),
    ] = None
    feature: Annotated[str, Meta(description="view:feature, the strongest of the family")]
    value: float | None
    age_ms: Annotated[int | None, Meta(description="as-of time minus the time of the newest event in the value")]
    status: Status
    features: Annotated[
        list[ReasonFeature],
        Meta(description="the strongest of the family: those that moved the margin furthest in the reason's direction"),
    ]
    features_rest: Annotated[
        float, Meta(description="attributions of features + features_rest = attribution of the reason")
    ]


class FeatureReading(Struct, frozen=True, kw_only=True):
    """One feature as it was read; `attribution` is its share of the margin, `family` the reason that it belongs to."""

    feature: str
    family: str
    value: float | None
    age_ms: int | None
    status: Status
    attribution: float
    standard_error: float | None = None


class AbsentFeature(Struct, frozen=True):
    """A feature without a value, and why."""

    feature: str
    status: Status


class StatusCounts(Struct, frozen=True, kw_only=True, rename="upper"):
    """How many of the model's features were read with which status."""

    present: int = 0
    null_value: int = 0
    not_found: int = 0
    outside_max_age: int = 0


class Latency(Struct, frozen=True, kw_only=True):
    """Where the time went, in milliseconds, from the last byte of the request to the writing of the record.

    Requests that come while others are answered are answered together: `features`, `score` and `explain` are those of
    all of them, `wait` is until that began and until it was heard of. The event is published meanwhile, `publish` is
    what that took longer.
    """

    parse: float
    wait: float
    features: float
    score: float
    explain: float
    publish: float
    total: float


class Decision(Struct, frozen=True, kw_only=True):
    """The decision record: the answer, why, and from what."""

    decision_id: Annotated[str, Meta(description="UUID version 7: sorts by time")]
    trace_id: str
    mode: Mode
    model: ModelVersion
    service: ServiceVersion
    actor: Annotated[dict[str, str | int], Meta(description="join key → value, as the features were read")]
    actor_known: Annotated[
        bool, Meta(description="false when nothing was stored of any of these entities before this request")
    ]
    as_of: Annotated[str, Meta(description="the instant that the features were read for, RFC 3339")]
    as_of_ms: Annotated[int, Meta(description="the same in milliseconds since 1970-01-01 UTC")]
    score: Annotated[float, Meta(description="0 to 1; of a regression the value itself, in its unit")]
    margin: Annotated[float, Meta(description="what is explained: log-odds unless `output_space` says otherwise")]
    verdict: Verdict
    thresholds: Thresholds
    reasons: Annotated[list[Reason], Meta(description="strongest attribution first; empty without explanation")]
    base_value: Annotated[
        float | None, Meta(description="base_value + attributions of reasons + attributions_rest = margin")
    ]
    attributions_rest: Annotated[float | None, Meta(description="sum of the attributions of all other families")]
    output_space: Annotated[
        str | None,
        Meta(description="unit of base value and attributions: log_odds, raw_margin, probability or value"),
    ]
    sampled_orders: Annotated[
        int | None,
        Meta(description="orders of the features that an estimated explanation rests on; null when it is exact"),
    ] = None
    reference: Annotated[str | None, Meta(description="what the actor is compared with")]
    feature_statuses: StatusCounts
    features_absent: Annotated[list[AbsentFeature], Meta(description="every feature that is not PRESENT")]
    features: Annotated[
        list[FeatureReading] | None, Meta(description="every feature in the model's order, with explain: full")
    ]
    degraded: Annotated[list[Degradation], Meta(description="what was missing or failed on the way; empty is good")]
    latency_ms: Latency


class ModelCard(Struct, frozen=True, kw_only=True):
    """A served model, as `/v1/models` lists it."""

    name: str
    alias: str
    version: str
    service: ServiceVersion
    entities: Annotated[list[str], Meta(description="join keys that a request must give, itself or by its event")]
    request_fields: list[str]
    feature_count: int
    thresholds: Thresholds
    metrics: Annotated[dict[str, float], Meta(description="measured on a later time span than the training's")]
    mode: Annotated[
        Role, Meta(description="what it does under this name; `fallback`: answers where the policy falls back")
    ] = "live"
    share: Annotated[
        float, Meta(description="of the actors it answers about; 0 for a shadow or a fallback, and while off")
    ] = 1.0
    rollout: Annotated[int, Meta(description="the rollout that says so; 0: the server's configuration does")] = 0


class ModelList(Struct, frozen=True):
    """The served models."""

    models: list[ModelCard]


class StoredFeature(Struct, frozen=True, kw_only=True):
    """One feature of an entity, as it would be read now."""

    feature: Annotated[str, Meta(description="view:feature")]
    description: str
    type: Annotated[str, Meta(description="Feast's name of the value's type: DOUBLE, INT64, STRING, …")]
    value: Annotated[Any, Meta(description="as JSON has it; null unless PRESENT")]
    status: Status
    age_ms: Annotated[int | None, Meta(description="as-of time minus the time of the newest event in the value")]


class StoredFeatures(Struct, frozen=True, kw_only=True):
    """What is stored of one entity."""

    entity: str
    join_key: str
    key: str | int
    is_known: Annotated[bool, Meta(description="false when nothing is stored of it")]
    as_of: Annotated[str, Meta(description="the instant that the features were read for, RFC 3339")]
    as_of_ms: Annotated[int, Meta(description="the same in milliseconds since 1970-01-01 UTC")]
    features: list[StoredFeature]


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was wrong (RFC 9457). `type` identifies the kind and leads to its documentation; `field` is the part of
    the request at fault, in dots: `entities.ip`."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


class Health(Struct, frozen=True):
    """The process lives."""

    status: Literal["ok"]


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether requests can be answered, and if not, why not; `notes` name what works but not as it should."""

    ready: bool
    reasons: list[str]
    notes: list[str]
