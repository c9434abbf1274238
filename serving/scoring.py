"""From a request to its decision, without HTTP and without Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from materialize.definitions import DefinitionError
from materialize.events import partition_key
from materialize.online import OnlineStoreError, OnlineStoreUnavailableError
from serving import record
from serving.answering import Asked, ModelRounds, Scored
from serving.clock import NS_PER_MS, Clock
from serving.decision import Decision, Degradation, Latency, ModelCard, ModelVersion, Readiness, ScoreRequest
from serving.errors import ModelLoadError, UnknownModelError
from serving.identifiers import (
    DECISION_RANDOM_BYTES,
    TRACE_RANDOM_BYTES,
    Identity,
    decision_id,
    rfc3339,
    trace_id_of,
)
from serving.inputs import TopicEvent
from serving.loading import ServedModel, load_models, with_plan
from serving.logged import layout_of, logged_decision
from serving.ports import DecisionLog, FeatureSource, LogCounts, ModelSource, Publisher

_LOG = logging.getLogger(__name__)


class ScoringService:
    """Answers scoring requests with the models that were loaded last."""

    def __init__(
        self,
        reader: FeatureSource,
        source: ModelSource,
        publisher: Publisher,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        publish_timeout_s: float = 0.25,
        log: DecisionLog | None = None,
    ) -> None:
        """`random_bytes(n)` gives n bytes for identifiers; an event waits `publish_timeout_s` for the stream. Without
        `log` no decision is kept."""
        self._reader = reader
        self._source = source
        self._publisher = publisher
        self._clock = clock
        self._random_bytes = random_bytes
        self._publish_timeout_s = publish_timeout_s
        self._log = log
        self._publishing_works = True
        self._models: Mapping[str, ModelRounds] = {}
        self._publishings: set[asyncio.Task[list[Degradation]]] = set()
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
        self._serve(loaded)
        self._load_failure, self._left_behind = None, []

    async def follow_registry(self) -> bool:
        """Read by what the registry says now, from one request to the next, if it has changed. Returns whether it has.

        A model that does not fit its feature service any more goes on with the definitions that it was loaded with, and
        /readyz says so: its rows are those of another definition, and NOT_FOUND, once the new one is materialized.
        """
        try:
            changed = await asyncio.to_thread(self._reader.refresh)
            plans = {name: self._reader.plan(one.served.plan.service) for name, one in self._models.items()}
        except (OnlineStoreError, DefinitionError) as error:
            self._left_behind = [f"the feature registry cannot be used, the last definitions stay: {error}"]
            return False
        if not changed:
            return False
        models, self._left_behind = {}, []
        for name, one in self._models.items():
            try:
                models[name] = with_plan(one.served, plans[name])
            except ModelLoadError as error:
                models[name] = one.served
                self._left_behind.append(f"the registry has changed, the last definitions stay: {error}")
        self._serve(models)
        return True

    def _serve(self, models: Mapping[str, ServedModel]) -> None:
        """Answer by these from the next request on; a round under way ends as it began."""
        self._models = {name: ModelRounds(served, self._reader, self._clock) for name, served in models.items()}

    def cards(self) -> list[ModelCard]:
        """The served models."""
        return [one.served.card for one in self._models.values()]

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
        self,
        request: ScoreRequest,
        since_ns: int,
        *,
        traceparent: str | None = None,
        until_ns: int | None = None,
        patient: bool = False,
    ) -> Decision:
        """The decision about one request that came at `since_ns` and must be answered at `until_ns`, both monotonic.

        1. hold the request against the model, 2. publish the event, and meanwhile 3. read and merge the features,
        score and explain together with who else asks, 4. write the record, 5. hand it to the decision log, if it wants
        this one. `patient` ones let all others go first.

        Raises RequestError for what the caller must change, OnlineStoreUnavailableError when Redis is away.
        """
        model, now_ms = self._model(request.model), self._clock.now_ms()
        inputs = model.served.inputs.read(request, now_ms)
        parsed_ns = self._clock.monotonic_ns()
        publishing = self._publishing(inputs.scored) if request.publish_event else None
        scored = await model.rounds.ask(Asked(inputs, request.explain, until_ns), patient=patient)
        scored_ns = self._clock.monotonic_ns()
        answering_ms = scored.features_ms + scored.score_ms + scored.explain_ms
        degraded = scored.degraded
        if publishing is not None:
            degraded = degraded + await publishing
        end_ns = self._clock.monotonic_ns()
        latency = Latency(
            parse=(parsed_ns - since_ns) / NS_PER_MS,
            wait=(scored_ns - parsed_ns) / NS_PER_MS - answering_ms,
            features=scored.features_ms,
            score=scored.score_ms,
            explain=scored.explain_ms,
            publish=(end_ns - scored_ns) / NS_PER_MS,
            total=(end_ns - since_ns) / NS_PER_MS,
        )
        decision = _decision(scored, self._identity(request, traceparent, now_ms), degraded, latency)
        self._keep(decision, scored, request.publish_event)
        return decision

    def _model(self, name: str) -> ModelRounds:
        model = self._models.get(name)
        if model is None:
            raise UnknownModelError(name, self._models)
        return model

    def _publishing(self, scored: TopicEvent | None) -> asyncio.Task[list[Degradation]] | None:
        """The publication of an event, under way. It goes on when the request fails: an event counts once."""
        if scored is None:
            return None
        task = asyncio.create_task(self._publish(scored))
        self._publishings.add(task)
        task.add_done_callback(self._publishings.discard)
        return task

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

    def _keep(self, decision: Decision, scored: Scored, publish: bool) -> None:
        if self._log is not None and self._log.wants(decision.decision_id):
            plan = scored.served.plan
            entry = logged_decision(decision, plan, scored.inputs, scored.vector, scored.read_ms, publish=publish)
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


def _decision(scored: Scored, identity: Identity, degraded: list[Degradation], latency: Latency) -> Decision:
    card, explained = scored.served.card, scored.explained
    return Decision(
        decision_id=identity.decision_id,
        trace_id=identity.trace_id,
        mode="live",
        model=ModelVersion(card.name, card.version),
        service=card.service,
        actor=dict(scored.inputs.entities),
        actor_known=scored.vector.counts.rows_found > 0,
        as_of=rfc3339(scored.as_of_ms),
        as_of_ms=scored.as_of_ms,
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
