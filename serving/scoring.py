"""From a request to its decision, without HTTP and without Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from materialize.definitions import DefinitionError
from materialize.events import partition_key
from materialize.online import OnlineStoreError, OnlineStoreUnavailableError
from materialize.personal import reason_of
from serving import record
from serving.answering import Asked, ModelRounds, Scored
from serving.breaker import Breaker
from serving.capacity import Capacity
from serving.clock import NS_PER_MS, Clock
from serving.deadlines import end_ns_of
from serving.decision import Decision, Degradation, Latency, Mode, ModelCard, ModelVersion, Readiness, ScoreRequest
from serving.errors import LateError, ModelLoadError, ModelOffError, TooManyRequestsError, UnknownModelError
from serving.identifiers import (
    DECISION_RANDOM_BYTES,
    TRACE_RANDOM_BYTES,
    Identity,
    decision_id,
    rfc3339,
    trace_id_of,
)
from serving.inputs import TopicEvent
from serving.lineup import Lineup, lineup_of
from serving.loading import HeldModels, Loaded, ServedModel, load_models, with_plan
from serving.logged import FeatureLayout, LoggedDecision, logged_decision
from serving.policy import Choice, Policy, Without, policy_of
from serving.ports import DecisionLog, FeatureSource, ModelSource, Publisher
from serving.telemetry import ServiceState, Telemetry
from serving.trace_context import Tracing

BEYOND_CAPACITY = "more requests are under way than can be answered soon"
PATIENT_MAX = 4_000
"""So many parts of batches and explanations may wait, which let the others go first."""
FREE_FOR_PATIENT = 0.5
"""Patient ones can best come back later: they are taken only while so much of the capacity is free."""
SHADOWS_MAX = 256
"""Shadows that may wait; beyond, they are left out."""
PARTLY_AWAY = "a part of the online store that this request needs does not answer: try again"
_UNREAD: frozenset[Degradation] = frozenset({"features_partial", "features_defaulted"})
NO_LINEUPS: Mapping[str, Lineup] = {}

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
        telemetry: Telemetry | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`random_bytes(n)` gives n bytes for identifiers; an event waits `publish_timeout_s` for the stream. Without
        `log` no decision is kept. `telemetry` is told of every answer, and so is `tracing`."""
        self.telemetry = telemetry or Telemetry()
        self.tracing = tracing
        self._reader = reader
        self._source = HeldModels(source)
        self._publisher = publisher
        self._clock = clock
        self._random_bytes = random_bytes
        self._publish_timeout_s = publish_timeout_s
        self._log = log
        self._publishing_works = True
        self._breaker = Breaker(clock.monotonic_ns)
        self._lineups: Mapping[str, Lineup] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._capacity = Capacity(clock.monotonic_ns)
        self._refused = self._shadows_dropped = 0
        self._unwritten: dict[int, tuple[FeatureLayout, list[LoggedDecision]]] = {}
        self._unwritten_for: list[asyncio.Future[None]] = []
        self._loading = asyncio.Lock()
        self._load_failure: str | None = None
        self._left_behind: list[str] = []
        self._refusals: Mapping[str, str] = {}
        self._told: Mapping[str, str] = {}

    async def load(self, policies: Mapping[str, str | Policy]) -> None:
        """Serve these models (name → policy, or alias or version) and no others, from one request to the next.

        All of them are loaded and checked beside the old ones first; reading and proving bundles happens in a thread.
        Of two loads at once the later one counts. Raises ModelLoadError, and then the old models stay.
        """
        await self.load_first({name: [Choice(policy_of(said))] for name, said in policies.items()})

    async def load_first(self, choices: Mapping[str, Sequence[Choice]]) -> None:
        """The same by the first of each name's choices whose models can all be served."""
        async with self._loading:
            try:
                loaded = await self._loaded(choices)
            except Exception as error:
                self._load_failure = str(error) or repr(error)
                raise
            self._serve(loaded)
            self._load_failure, self._left_behind = None, []
            self._refusals = {
                name: _refusal(name, choices[name][0], one.refusals[0]) for name, one in loaded.items() if one.refusals
            }

    async def change(self, name: str, choice: Choice) -> None:
        """Serve one name by another policy; nothing changes for the others, nor, if this raises ModelLoadError, for it.

        Of its models those are loaded that are not served under this name now, nor were before the last change.
        """
        async with self._loading:
            try:
                loaded = await self._loaded({name: [choice]})
            except ModelLoadError as error:
                self._refusals = {**self._refusals, name: _refusal(name, choice, str(error))}
                raise
            self._serve(loaded, self._lineups)
            self._refusals = {other: told for other, told in self._refusals.items() if other != name}

    async def _loaded(self, choices: Mapping[str, Sequence[Choice]]) -> dict[str, Loaded]:
        await self._read_registry()
        return await asyncio.to_thread(load_models, self._source, self._reader, choices)

    def _serve(self, loaded: Mapping[str, Loaded], others: Mapping[str, Lineup] = NO_LINEUPS) -> None:
        """Swap in what was loaded, and hold what it replaces: going back to it is instant."""
        before = self._lineups
        fresh = {name: lineup_of(name, one.choice, one.models, self._rounds) for name, one in loaded.items()}
        self._lineups = {**others, **fresh}
        held = (*before.values(), *self._lineups.values())
        self._source.hold(model.served for lineup in held for model in lineup.models.values())

    async def warm_up(self) -> None:
        """Let each model answer once, about nobody, so that the first caller does not wait for what is slow once."""
        with suppress(OnlineStoreUnavailableError):
            for model in self._served_models():
                await model.warm_up()

    def rollout(self, name: str) -> int:
        """The number of the rollout that a model is served by; 0 for the configuration's policy, or no such model."""
        lineup = self._lineups.get(name)
        return 0 if lineup is None else lineup.rollout

    def tell(self, about: str, note: str | None) -> None:
        """Put a note about something into /readyz, in the place of the one before, or take it away."""
        self._told = {key: told for key, told in {**self._told, about: note}.items() if told is not None}

    async def follow_registry(self) -> bool:
        """Read by what the registry says now, from one request to the next, if it has changed. Returns whether it has.

        A model that does not fit its feature service any more goes on with the definitions that it was loaded with, and
        /readyz says so: its rows are those of another definition, and NOT_FOUND, once the new one is materialized.
        """
        async with self._loading:
            try:
                return await self._read_registry()
            except ModelLoadError as error:
                self._left_behind = [f"{error}; the last definitions stay"]
                return False

    async def _read_registry(self) -> bool:
        """Whoever finds that the registry has changed takes that over: nobody is told of it again."""
        try:
            if not await asyncio.to_thread(self._reader.refresh):
                return False
        except (OnlineStoreError, DefinitionError) as error:
            raise ModelLoadError(f"the feature registry cannot be used: {error}") from error
        left_behind: list[str] = []
        self._lineups = {name: self._planned_anew(lineup, left_behind) for name, lineup in self._lineups.items()}
        self._left_behind = left_behind
        return True

    def _planned_anew(self, lineup: Lineup, left_behind: list[str]) -> Lineup:
        """The same models, reading as the registry says now; of those that do not fit it any more it is told."""
        models = {}
        for called, model in lineup.models.items():
            models[called] = model.served
            try:
                models[called] = with_plan(model.served, self._reader.plan(model.served.plan.service))
            except (ModelLoadError, OnlineStoreError, DefinitionError) as error:
                left_behind.append(f"the registry has changed, the last definitions stay: {error}")
        return lineup_of(lineup.name, Choice(lineup.policy, lineup.rollout), models, self._rounds)

    def _rounds(self, served: ServedModel) -> ModelRounds:
        """A round under way ends with the model that it began with."""
        return ModelRounds(served, self._reader, self._breaker, self._clock, self.telemetry.watch(served))

    def cards(self) -> list[ModelCard]:
        """The served models, under each name the champion first."""
        return [card for lineup in self._lineups.values() for card in lineup.cards()]

    def served(self, name: str) -> ServedModel:
        """The champion under a name. Raises UnknownModelError, or ModelOffError."""
        return self._lineup(name).champion.served

    def state(self) -> ServiceState:
        """How things stand, for whoever watches."""
        waiting: dict[tuple[str, str], tuple[int, int]] = {}
        for model in self._served_models():
            key = (model.served.card.name, model.served.card.version)
            urgent, patient = waiting.get(key, (0, 0))
            waiting[key] = (urgent + model.rounds.waiting, patient + model.rounds.patient)
        return ServiceState(
            cards=self.cards(),
            waiting=waiting,
            under_way=self._capacity.under_way,
            refused=self._refused,
            breaker_is_open=self._breaker.is_open,
            shards_away=len(self._reader.shards_away()),
            shadows_dropped=self._shadows_dropped,
            log=None if self._log is None else self._log.counts(),
        )

    async def readiness(self, timeout_s: float = 1.0) -> Readiness:
        """Whether requests can be answered now. A store that is away is a note where all policies do without it."""
        reasons = [] if self._lineups else ["no model is loaded"]
        notes = [] if self._load_failure is None else [f"the last load was refused: {self._load_failure}"]
        away = await self._store_away(timeout_s)
        if away is not None:
            needed = any(lineup.policy.store_away == "refuse" for lineup in self._lineups.values())
            (reasons if needed else notes).append(away)
        if away is None:
            notes += [f"a shard of the online store does not answer: {told}" for told in self._reader.shards_away()]
        notes += [*self._refusals.values(), *self._left_behind, *self._told.values()]
        if not self._publishing_works:
            notes.append("the last event could not be published to the stream")
        notes += [f"{name} is switched off" for name, lineup in self._lineups.items() if not lineup.policy.is_on]
        notes += [] if self._log is None else self._log.notes()
        return Readiness(ready=not reasons, reasons=reasons, notes=notes)

    async def _store_away(self, timeout_s: float) -> str | None:
        """What is wrong with the online store, if something is."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._reader.ping()
        except OnlineStoreUnavailableError as error:
            return f"the online store does not answer: {error}"
        except TimeoutError:
            return f"the online store did not answer within {timeout_s} s"
        return None

    async def score(
        self,
        request: ScoreRequest,
        since_ns: int,
        *,
        traceparent: str | None = None,
        until_ns: int | None = None,
        patient: bool = False,
        degraded: Sequence[Degradation] = (),
    ) -> Decision:
        """The decision about one request that came at `since_ns` and must be answered at `until_ns`, both monotonic.

        1. hold the request against the model, 2. publish the event, and meanwhile 3. read and merge the features,
        score and explain together with who else asks, 4. write the record, 5. hand it to the decision log, if it wants
        this one. `patient` ones let all others go first. `degraded`: what is undone already.

        Raises RequestError for what the caller must change, TooManyRequestsError beyond capacity; and where the policy
        has no answer instead, OnlineStoreUnavailableError when Redis is away, LateError, ModelOffError.
        """
        self._capacity.under_way += not patient
        try:
            return await self._score(request, since_ns, traceparent, until_ns, degraded, patient=patient)
        finally:
            self._capacity.under_way -= not patient

    async def _score(
        self,
        request: ScoreRequest,
        since_ns: int,
        traceparent: str | None,
        until_ns: int | None,
        degraded: Sequence[Degradation],
        *,
        patient: bool,
    ) -> Decision:
        lineup, now_ms = self._lineup(request.model), self._clock.now_ms()
        inputs = lineup.champion.served.inputs.read(request, now_ms)
        model, mode = lineup.chosen(inputs.entities)
        if model.served.plan is not lineup.champion.served.plan:
            inputs = model.served.inputs.read(request, now_ms)
        parsed_ns = self._clock.monotonic_ns()
        publishing = self._publishing(inputs.scored) if request.publish_event else None
        scored = await self._scored(lineup, model, Asked(inputs, request.explain, until_ns), since_ns, patient=patient)
        scored_ns = self._clock.monotonic_ns()
        if not patient and scored.features_ms:  # the store's time is not ours: with a slow one as many may wait
            self._capacity.took(scored_ns - since_ns - int(scored.features_ms * NS_PER_MS))
        undone = [*scored.degraded, *degraded]
        if publishing is not None:
            undone += await self._published(publishing, until_ns)
        end_ns = self._clock.monotonic_ns()
        latency = _latency(scored, since_ns, parsed_ns, scored_ns, end_ns)
        decision = _decision(scored, mode, self._identity(request, traceparent, now_ms), undone, latency)
        tally = model.tally if scored.served is model.served else self.telemetry.watch(scored.served)
        tally.decided(decision)
        if self.tracing is not None:
            self.tracing.decided(decision)
        await self._keep(decision, scored, request.publish_event)
        for shadow in lineup.shadows():
            self._begin_shadow(shadow, request, decision.trace_id)
        return decision

    def require_capacity(self, patient: int = 0) -> None:
        """Raises TooManyRequestsError unless one more request can be answered soon, or so many patient ones later."""
        is_full = self._capacity.is_full(FREE_FOR_PATIENT if patient else 1.0)
        if is_full or (patient and self._patient() + patient > PATIENT_MAX):
            self._refused += 1
            raise TooManyRequestsError(BEYOND_CAPACITY)

    @property
    def capacity(self) -> int:
        """How many scores are taken at once, now."""
        return self._capacity.bound

    @property
    def is_full(self) -> bool:
        """Whether no more scores are taken, now."""
        return self._capacity.is_full()

    def count_refused(self, count: int) -> None:
        """Count scores that were told to come back by who stands before the service."""
        self._refused += count

    def _patient(self) -> int:
        """How many patient ones wait, for all models together."""
        return sum(model.rounds.patient for model in self._served_models())

    def _served_models(self) -> Iterator[ModelRounds]:
        return (model for lineup in self._lineups.values() for model in lineup.models.values())

    def require(self, model: str, patient: int) -> None:
        """Raises UnknownModelError or ModelOffError unless the model answers, TooManyRequestsError beyond capacity."""
        self._lineup(model)
        self.require_capacity(patient)

    def _lineup(self, name: str) -> Lineup:
        lineup = self._lineups.get(name)
        if lineup is None:
            raise UnknownModelError(name, self._lineups)
        if not lineup.policy.is_on and lineup.policy.fallback_score is None:
            raise ModelOffError(name)
        return lineup

    async def _scored(
        self, lineup: Lineup, model: ModelRounds, asked: Asked, since_ns: int, *, patient: bool
    ) -> Scored:
        """The model's answer, or what the policy has instead of it."""
        policy = lineup.policy
        if not policy.is_on:
            return model.fallback_score(asked, policy.fallback_score or 0.0)
        try:
            if asked.until_ns is not None:
                async with asyncio.timeout(max(0.0, self._clock.left_s(asked.until_ns))):
                    scored = await model.rounds.ask(asked, patient=patient)
            elif patient:
                scored = await model.rounds.ask(asked, patient=True)
            else:
                scored = await model.rounds.ask_now(asked)
            if not scored.degraded or policy.store_away == "default" or _UNREAD.isdisjoint(scored.degraded):
                return scored
            raise OnlineStoreUnavailableError(PARTLY_AWAY)
        except TimeoutError:
            instead = policy.late
            if instead == "refuse":
                raise LateError from None
        except OnlineStoreUnavailableError:
            instead = policy.store_away
            if instead == "refuse":
                raise
        return self._instead(lineup, model, asked, since_ns, instead)

    def _instead(self, lineup: Lineup, model: ModelRounds, asked: Asked, since_ns: int, instead: Without) -> Scored:
        """The answer without the store: the model's by default features, the fallback model's, or the policy's score.

        Each only if it is likely to be there by the caller's deadline, the last that there is in any case.
        """
        policy, fallback = lineup.policy, lineup.fallback
        if instead == "default" and (self._is_in_time(model, asked, since_ns) or not policy.has_fallback):
            return model.unread(asked, "features_defaulted")
        if fallback is None or (policy.fallback_score is not None and not self._is_in_time(fallback, asked, since_ns)):
            return model.fallback_score(asked, policy.fallback_score or 0.0)
        adopted = fallback.served.inputs.adopted(asked.inputs)
        return fallback.unread(msgspec.structs.replace(asked, inputs=adopted), "fallback_model")

    def _is_in_time(self, model: ModelRounds, asked: Asked, since_ns: int) -> bool:
        """Whether the model's answer without stored features would be there in time, by what it took lately."""
        if asked.until_ns is None:
            return True
        return self._clock.monotonic_ns() + model.unread_ns <= end_ns_of(since_ns, asked.until_ns)

    def _begin_shadow(self, model: ModelRounds, request: ScoreRequest, trace_id: str) -> None:
        """Score the same request by another model, for the log alone; left out, and counted, while too many wait."""
        if model.rounds.patient >= SHADOWS_MAX:
            self._shadows_dropped += 1
            return
        self._hold(asyncio.create_task(self._shadow(model, request, trace_id)))

    async def _shadow(self, model: ModelRounds, request: ScoreRequest, trace_id: str) -> None:
        since_ns, now_ms = self._clock.monotonic_ns(), self._clock.now_ms()
        try:
            asked = Asked(model.served.inputs.read(request, now_ms), "none", None)
            scored = await model.rounds.ask(asked, patient=True)
        except Exception as error:  # nobody waits for a shadow: a request that it cannot read is its own affair
            _LOG.debug("a shadow did not score: %s", type(error).__name__)
            self._shadows_dropped += 1
            return
        scored_ns = self._clock.monotonic_ns()
        latency = _latency(scored, since_ns, since_ns, scored_ns, scored_ns)
        identity = Identity(decision_id(now_ms, self._random_bytes(DECISION_RANDOM_BYTES)), trace_id)
        decision = _decision(scored, "shadow", identity, scored.degraded, latency)
        model.tally.decided(decision)
        await self._keep(decision, scored, publish=False)

    def _publishing(self, scored: TopicEvent | None) -> asyncio.Task[list[Degradation]] | None:
        """The publication of an event, under way. It goes on when the request fails: an event counts once."""
        if scored is None:
            return None
        task = asyncio.create_task(self._publish(scored))
        self._hold(task)
        return task

    def _hold(self, task: asyncio.Task[Any]) -> None:
        """Nobody else may hold it: the event loop does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _published(self, task: asyncio.Task[list[Degradation]], until_ns: int | None) -> list[Degradation]:
        """What stays undone of a publication, by the request's deadline."""
        if until_ns is None or task.done():
            return await task
        done, _ = await asyncio.wait([task], timeout=max(0.0, self._clock.left_s(until_ns)))
        return task.result() if done else ["event_publish_unconfirmed"]

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
            self._note_publishing(reason_of(error))
            return ["event_not_published"]
        self._note_publishing(None)
        return []

    async def _keep(self, decision: Decision, scored: Scored, publish: bool) -> None:
        """Return when the decision is safe in the log, if it wants this one: all of a round are written at once."""
        if self._log is None or not self._log.wants(decision.decision_id):
            return
        served = scored.served
        entry = logged_decision(decision, served.plan, scored.inputs, scored.row, scored.read_ms, publish=publish)
        if scored.is_alone:
            self._log.append([entry], served.layout)
            return
        self._unwritten.setdefault(id(served.layout), (served.layout, []))[1].append(entry)
        loop = asyncio.get_running_loop()
        if not self._unwritten_for:
            loop.call_soon(self._write)  # after all whom the same round has answered
        written = loop.create_future()
        self._unwritten_for.append(written)
        await written

    def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        waiting, self._unwritten_for = self._unwritten_for, []
        for layout, entries in unwritten.values():
            if self._log is not None:
                self._log.append(entries, layout)
        for written in waiting:
            if not written.done():  # who has left does not wait any more
                written.set_result(None)

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


def _refusal(name: str, choice: Choice, why: str) -> str:
    return f"rollout {choice.rollout} of {name} is refused, an earlier one stays: {why}"


def _latency(scored: Scored, since_ns: int, parsed_ns: int, scored_ns: int, end_ns: int) -> Latency:
    """Where the time of an answer went, by when its stages ended."""
    answering_ms = scored.features_ms + scored.score_ms + scored.explain_ms
    return Latency(
        parse=(parsed_ns - since_ns) / NS_PER_MS,
        wait=(scored_ns - parsed_ns) / NS_PER_MS - answering_ms,
        features=scored.features_ms,
        score=scored.score_ms,
        explain=scored.explain_ms,
        publish=(end_ns - scored_ns) / NS_PER_MS,
        total=(end_ns - since_ns) / NS_PER_MS,
    )


def _decision(
    scored: Scored, mode: Mode, identity: Identity, degraded: list[Degradation], latency: Latency
) -> Decision:
    card, explained = scored.served.card, scored.explained
    return Decision(
        decision_id=identity.decision_id,
        trace_id=identity.trace_id,
        mode=mode,
        model=ModelVersion(card.name, card.version),
        service=card.service,
        actor=dict(scored.inputs.entities),
        actor_known=scored.counts.rows_found > 0,
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
