"""From a request to its decision, without HTTP and without Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from materialize.definitions import DefinitionError
from materialize.events import Event, partition_key
from materialize.online import FeatureVector, OnlineStoreError, OnlineStoreUnavailableError
from serving import record
from serving.clock import Stopwatch
from serving.decision import Decision, Degradation, Explain, Latency, ModelCard, ModelVersion, Readiness, ScoreRequest
from serving.errors import ModelLoadError, UnknownModelError
from serving.identifiers import (
    DECISION_RANDOM_BYTES,
    TRACE_RANDOM_BYTES,
    Identity,
    decision_id,
    rfc3339,
    trace_id_of,
)
from serving.inputs import Inputs, TopicEvent
from serving.loading import ServedModel, load_models, with_plan
from serving.logged import layout_of, logged_decision
from serving.ports import DecisionLog, FeatureSource, Floats, LogCounts, ModelSource, Publisher

EXPLAIN_DEADLINE_MS = 20.0
"""An explanation that is estimated ends after about this long; exact ones take what they take, far less."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Scored:
    """What became of one request, but for its time stamps. `margin` in the model's output space."""

    served: ServedModel
    inputs: Inputs
    vector: FeatureVector
    readings: record.Readings
    margin: float
    score: float
    explained: record.Explained


class ScoringService:
    """Answers scoring requests with the models that were loaded last."""

    def __init__(
        self,
        reader: FeatureSource,
        source: ModelSource,
        publisher: Publisher,
        random_bytes: Callable[[int], bytes],
        publish_timeout_s: float = 0.25,
        log: DecisionLog | None = None,
    ) -> None:
        """`random_bytes(n)` gives n bytes for identifiers; an event waits `publish_timeout_s` for the stream. Without
        `log` no decision is kept."""
        self._reader = reader
        self._source = source
        self._publisher = publisher
        self._random_bytes = random_bytes
        self._publish_timeout_s = publish_timeout_s
        self._log = log
        self._publishing_works = True
        self._models: Mapping[str, ServedModel] = {}
        self._load_failure: str | None = None
        self._left_behind: list[str] = []

    async def load(self, aliases: Mapping[str, str]) -> None:
        """Serve these models (name → alias or version) and no others, from one request to the next.

        All of them are loaded and checked beside the old ones first; reading and proving bundles happens in a thread.
        Raises ModelLoadError, and then everything stays as it was.
        """
        try:
            loaded = await asyncio.to_thread(load_models, self._source, self._reader, aliases)
        except Exception as error:
            self._load_failure = str(error) or repr(error)
            raise
        self._models, self._load_failure, self._left_behind = loaded, None, []

    async def follow_registry(self) -> bool:
        """Read by what the registry says now, from one request to the next, if it has changed. Returns whether it has.

        A model that does not fit its feature service any more goes on with the definitions that it was loaded with, and
        /readyz says so: its rows are those of another definition, and NOT_FOUND, once the new one is materialized.
        """
        try:
            changed = await asyncio.to_thread(self._reader.refresh)
            plans = {name: self._reader.plan(served.plan.service) for name, served in self._models.items()}
        except (OnlineStoreError, DefinitionError) as error:
            self._left_behind = [f"the feature registry cannot be used, the last definitions stay: {error}"]
            return False
        if not changed:
            return False
        models, self._left_behind = {}, []
        for name, served in self._models.items():
            try:
                models[name] = with_plan(served, plans[name])
            except ModelLoadError as error:
                models[name] = served
                self._left_behind.append(f"the registry has changed, the last definitions stay: {error}")
        self._models = models
        return True

    def cards(self) -> list[ModelCard]:
        """The served models."""
        return [served.card for served in self._models.values()]

    def log_counts(self) -> LogCounts | None:
        """What has become of the decisions in the decision log; None without one."""
        return None if self._log is None else self._log.counts()

    async def readiness(self, timeout_s: float = 1.0) -> Readiness:
        """Whether requests can be answered now."""
        reasons = [] if self._models else ["no model is loaded"]
        try:
            async with asyncio.timeout(timeout_s):
                await self._reader.ping()
        except OnlineStoreUnavailableError as error:
            reasons.append(f"the online store does not answer: {error}")
        except TimeoutError:
            reasons.append(f"the online store did not answer within {timeout_s} s")
        notes = [] if self._load_failure is None else [f"the last load was refused: {self._load_failure}"]
        notes += self._left_behind
        if not self._publishing_works:
            notes.append("the last event could not be published to the stream")
        notes += [] if self._log is None else self._log.notes()
        return Readiness(ready=not reasons, reasons=reasons, notes=notes)

    async def score(
        self, request: ScoreRequest, now_ms: int, stopwatch: Stopwatch, traceparent: str | None = None
    ) -> Decision:
        """The decision about one request, at the time `now_ms`. The stopwatch has run since the request came.

        1. hold the request against the model, 2. read and merge the features, 3. score, 4. explain,
        5. publish the event, 6. write the record, 7. hand it to the decision log, if it wants this one.

        Raises RequestError for what the caller must change, OnlineStoreUnavailableError when Redis is away.
        """
        served = self._served(request.model)
        inputs = served.inputs.read(request, now_ms)
        parse_ms = stopwatch.lap_ms()
        vector = await self._read(served, inputs)
        features_ms = stopwatch.lap_ms()
        readings = _readings(served, vector)
        matrix = served.model.vector(readings.values[np.newaxis, :])
        scores = served.model.score(matrix)
        score_ms = stopwatch.lap_ms()
        explained = _explained(served, matrix, readings, request.explain)
        explain_ms = stopwatch.lap_ms()
        degraded = record.degradations(vector.counts)
        if request.publish_event and inputs.scored is not None:
            degraded += await self._publish(inputs.scored)
        publish_ms = stopwatch.lap_ms()
        scored = _Scored(served, inputs, vector, readings, float(scores.margin[0]), float(scores.score[0]), explained)
        latency = Latency(
            parse=parse_ms,
            features=features_ms,
            score=score_ms,
            explain=explain_ms,
            publish=publish_ms,
            total=stopwatch.total_ms,
        )
        decision = _decision(scored, self._identity(request, traceparent, now_ms), degraded, latency)
        self._keep(decision, scored, now_ms, request.publish_event)
        return decision

    def _served(self, name: str) -> ServedModel:
        served = self._models.get(name)
        if served is None:
            raise UnknownModelError(name, self._models)
        return served

    async def _read(self, served: ServedModel, inputs: Inputs) -> FeatureVector:
        event: Event | None = None if inputs.scored is None else inputs.scored.event
        return await self._reader.read(
            served.plan, inputs.entities, inputs.as_of_ms, event=event, request=inputs.request
        )

    async def _publish(self, scored: TopicEvent) -> list[Degradation]:
        """Append the event to the stream; what stays undone when that fails."""
        key, value = partition_key(scored.event), msgspec.json.encode(scored.event)
        try:
            async with asyncio.timeout(self._publish_timeout_s):
                await self._publisher.publish(scored.topic, key, value)
        except TimeoutError:
            self._note_publishing(f"no acknowledgement within {self._publish_timeout_s} s")
            return ["event_publish_unconfirmed"]
        except Exception as error:  # any failure of any log: the answer is worth more, and the record says so
            self._note_publishing(repr(error))
            return ["event_not_published"]
        self._note_publishing(None)
        return []

    def _keep(self, decision: Decision, scored: _Scored, now_ms: int, publish: bool) -> None:
        if self._log is not None and self._log.wants(decision.decision_id):
            plan = scored.served.plan
            entry = logged_decision(decision, plan, scored.inputs, scored.vector, now_ms, publish=publish)
            self._log.append((entry,), layout_of(plan))

    def _note_publishing(self, failure: str | None) -> None:
        # Only changes are logged: at full rate an outage would fill the disk.
        if failure is not None and self._publishing_works:
            _LOG.warning("events are not published, decisions are marked degraded: %s", failure)
        if failure is None and not self._publishing_works:
            _LOG.warning("events are published again")
        self._publishing_works = failure is None

    def _identity(self, request: ScoreRequest, traceparent: str | None, now_ms: int) -> Identity:
        given = request.trace_id or (None if traceparent is None else trace_id_of(traceparent))
        return Identity(
            decision_id(now_ms, self._random_bytes(DECISION_RANDOM_BYTES)),
            given or self._random_bytes(TRACE_RANDOM_BYTES).hex(),
        )


def _readings(served: ServedModel, vector: FeatureVector) -> record.Readings:
    columns = served.columns
    return record.Readings(served.features, vector.values[columns], vector.statuses[columns], vector.ages_ms[columns])


def _explained(served: ServedModel, matrix: Floats, readings: record.Readings, explain: Explain) -> record.Explained:
    if explain == "none":
        return record.UNEXPLAINED
    explanation = served.model.explain(matrix, EXPLAIN_DEADLINE_MS)
    return record.explained(explanation, readings, served.reasons, full=explain == "full")


def _decision(scored: _Scored, identity: Identity, degraded: list[Degradation], latency: Latency) -> Decision:
    card, explained = scored.served.card, scored.explained
    return Decision(
        decision_id=identity.decision_id,
        trace_id=identity.trace_id,
        mode="live",
        model=ModelVersion(card.name, card.version),
        service=card.service,
        actor=dict(scored.inputs.entities),
        actor_known=scored.vector.counts.rows_found > 0,
        as_of=rfc3339(scored.inputs.as_of_ms),
        as_of_ms=scored.inputs.as_of_ms,
        score=scored.score,
        margin=scored.margin,
        verdict=record.verdict(scored.score, card.thresholds),
        thresholds=card.thresholds,
        reasons=explained.reasons,
        base_value=explained.base_value,
        attributions_rest=explained.attributions_rest,
        output_space=explained.output_space,
        reference=explained.reference,
        sampled_orders=explained.sampled_orders,
        feature_statuses=record.status_counts(scored.readings),
        features_absent=record.absent_features(scored.readings),
        features=explained.features,
        degraded=degraded,
        latency_ms=latency,
    )
