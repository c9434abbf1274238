"""The page that Prometheus scrapes: what is costly about metrics happens here, when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import ProcessCollector

from models.graph import VALUE
from serving.decision import ModelCard
from serving.event_results import EventResult
from serving.loading import ServedModel
from serving.ports import LogCounts
from serving.telemetry.counting import Counts
from serving.telemetry.exposition import Exposition
from serving.telemetry.model_tally import SCORE_BOUNDS, STAGES, ModelTally

_S_PER_MS = 1e-3
_MODEL = ("model", "version")
_ANSWERS = (*_MODEL, "mode")
_STATUSES = ("present", "null_value", "not_found", "outside_max_age")
_NOT_PUBLISHED = ("event_not_published", "event_publish_unconfirmed")
_OUTCOMES = ("logged", "dropped_full", "dropped_failed", "shipped", "unshippable", "lost_unshipped")

Tallies = Mapping[tuple[str, str], ModelTally]
"""(name, version) of a model → what it did."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """How the scoring service is right now.

    waiting    (name, version) → how many urgent and patient requests wait for a round
    under_way  urgent requests that are being answered; `refused` have been told to come back, beyond capacity
    log        what has become of the decisions in the decision log, None without one
    """

    cards: Sequence[ModelCard] = ()
    waiting: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    under_way: int = 0
    refused: int = 0
    breaker_is_open: bool = False
    shards_away: int = 0
    shadows_dropped: int = 0
    log: LogCounts | None = None


class Telemetry:
    """The counters of one application in one process."""

    def __init__(self, replica: str | None = None) -> None:
        """`replica` is a label of every series: behind one address, each scrape may reach another process."""
        self._common = {} if replica is None else {"replica": replica}
        self._requests, self._problems, self._events = Counts(), Counts(), Counts()
        self._repeats = self._unpublished_before = 0
        self._tallies: dict[tuple[str, str], ModelTally] = {}
        self._process = ProcessCollector(registry=None)

    def watch(self, served: ServedModel) -> ModelTally:
        """Where the answers of a model are counted; a version that is loaded again goes on."""
        key = (served.card.name, served.card.version)
        found = self._tallies.get(key)
        if found is None:
            refs = [feature.ref for feature in served.features]
            is_value = served.model.manifest.explanation.output_space == VALUE
            bounds = served.reference.edges if is_value else SCORE_BOUNDS
            found = self._tallies[key] = ModelTally(refs, bounds, served.reference)
        return found

    def count_request(self, route: str, status: int, count: int = 1) -> None:
        """Count answers. `route` is one of the application's, so that the series stay few."""
        self._requests.add(route, status, count=count)

    def count_problem(self, word: str, count: int = 1) -> None:
        """Count answers, or parts of a batch's, that are problems of this kind."""
        self._problems.add(word, count=count)

    def count_repeat(self) -> None:
        """Count a request with an idempotency key that got the answer of the first one."""
        self._repeats += 1

    def count_events(self, results: Sequence[EventResult]) -> None:
        """Count what became of events that were sent. The topic of one that is not valid is not known for sure."""
        for result in results:
            self._events.add(result.topic or "", result.status, result.reason or "")

    def render(self, state: ServiceState, accept: str) -> tuple[bytes, str]:
        """The page and its content type, in the format that `accept` asks for.

        What a version that is not served any more has answered is told for the last time.
        """
        to = Exposition(accept, self._common)
        self._write_requests(to)
        _write_answers(to, self._tallies)
        _write_scores(to, self._tallies)
        _write_reads(to, self._tallies)
        _write_state(to, state)
        self._write_process(to)
        self._forget(state.cards)
        return to.page(), to.content_type

    def _write_requests(self, to: Exposition) -> None:
        requests, events = self._requests.series.items(), self._events.series.items()
        to.counter("actor_risk_requests", "HTTP requests by route and status", ["route", "status"], requests)
        to.counter(
            "actor_risk_problems",
            "Answers, and parts of batches, that are problem details, by their kind",
            ["problem"],
            self._problems.series.items(),
        )
        told = "Requests with an idempotency key that got the answer of the first one"
        to.counter("actor_risk_idempotent_repeats", told, series=[((), self._repeats)])
        to.counter("actor_risk_events_taken", "Events sent over HTTP", ["topic", "status", "reason"], events)
        unpublished = self._unpublished_before + sum(map(_unpublished, self._tallies.values()))
        told = "Scored events that the stream did not acknowledge"
        to.counter("actor_risk_event_publish_failures", told, series=[((), unpublished)])

    def _write_process(self, to: Exposition) -> None:
        for family in self._process.collect():
            write = to.counter if family.type == "counter" else to.gauge
            write(family.name, family.documentation, series=[((), sample.value) for sample in family.samples])

    def _forget(self, cards: Sequence[ModelCard]) -> None:
        """A replica lives through many versions: their series must not add up."""
        for key in self._tallies.keys() - {(card.name, card.version) for card in cards}:
            self._unpublished_before += _unpublished(self._tallies.pop(key))


def _unpublished(tally: ModelTally) -> int:
    return sum(mode.degraded.get(reason, 0) for mode in tally.modes.values() for reason in _NOT_PUBLISHED)


def _write_answers(to: Exposition, tallies: Tallies) -> None:
    answers = [((*key, mode), found) for key, tally in tallies.items() for mode, found in tally.modes.items()]
    to.counter(
        "actor_risk_features_read",
        "Features read, by status",
        [*_ANSWERS, "status"],
        [((*key, status), getattr(found, status)) for key, found in answers for status in _STATUSES],
    )
    to.counter(
        "actor_risk_verdicts",
        "Answers by verdict",
        [*_ANSWERS, "verdict"],
        [((*key, verdict), count) for key, found in answers for verdict, count in found.verdicts.items()],
    )
    to.counter(
        "actor_risk_unknown_actors",
        "Answers about actors of whom nothing is stored",
        _ANSWERS,
        [(key, found.unknown_actors) for key, found in answers],
    )
    to.counter(
        "actor_risk_degraded",
        "Answers made without something",
        [*_ANSWERS, "reason"],
        [((*key, reason), count) for key, found in answers for reason, count in found.degraded.items()],
    )
    to.histogram(
        "actor_risk_stage_seconds",
        "Time per stage of an answer",
        [*_ANSWERS, "stage"],
        [((*key, stage), took) for key, found in answers for stage, took in zip(STAGES, found.stages, strict=True)],
        _S_PER_MS,
    )


def _write_scores(to: Exposition, tallies: Tallies) -> None:
    answers = [((*key, mode), found) for key, tally in tallies.items() for mode, found in tally.modes.items()]
    told = "Scores that a model gave to features that were read"
    to.histogram("actor_risk_score", told, _ANSWERS, [(key, found.scores) for key, found in answers])
    told = "Population stability index of the newest scores against those of the model's background rows"
    indices = [(key, found.window.psi()) for key, found in answers]
    to.gauge("actor_risk_score_psi", told, _ANSWERS, [(key, psi) for key, psi in indices if psi is not None])
    told = "Newest scores that the index is made from"
    to.gauge("actor_risk_score_psi_answers", told, _ANSWERS, [(key, found.window.answers) for key, found in answers])
    told = "Background rows that the index compares with"
    rows = [(key, tally.reference.rows) for key, tally in tallies.items()]
    to.gauge("actor_risk_score_reference_rows", told, _MODEL, rows)


def _write_reads(to: Exposition, tallies: Tallies) -> None:
    statuses = [((*key, *what), n) for key, tally in tallies.items() for what, n in tally.reads.statuses().items()]
    labels = [*_MODEL, "feature", "status"]
    to.counter("actor_risk_feature_values", "Values read of each feature, by status", labels, statuses)
    to.histogram(
        "actor_risk_view_age_seconds",
        "Age of the newest value that an answer read of a view",
        [*_MODEL, "view"],
        [((*key, view), ages_s) for key, tally in tallies.items() for view, ages_s in tally.reads.ages().items()],
    )
    rounds = [(key, tally.rounds) for key, tally in tallies.items()]
    to.histogram("actor_risk_round_size", "Requests that were answered together", _MODEL, rounds)


def _write_state(to: Exposition, state: ServiceState) -> None:
    labels = ["model", "alias", "version", "service", "fingerprint"]
    cards = [((c.name, c.alias, c.version, c.service.name, c.service.fingerprint), 1) for c in state.cards]
    to.gauge("actor_risk_model_info", "1 for each served model", labels, cards)
    waiting = [
        ((*key, urgency), count)
        for key, counts in state.waiting.items()
        for urgency, count in zip(("urgent", "patient"), counts, strict=True)
    ]
    to.gauge("actor_risk_waiting", "Requests that wait for a round", [*_MODEL, "urgency"], waiting)
    to.gauge("actor_risk_under_way", "Urgent requests that are being answered", series=[((), state.under_way)])
    told = "Requests told to come back, because more were under way than can be answered soon"
    to.counter("actor_risk_refused", told, series=[((), state.refused)])
    told = "1 while the online store is not asked, because it did not answer"
    to.gauge("actor_risk_breaker_open", told, series=[((), int(state.breaker_is_open))])
    told = "Shards of the online store that are not asked, because they did not answer, while others are"
    to.gauge("actor_risk_shards_away", told, series=[((), state.shards_away)])
    told = "Answers of shadows left out, because too many waited or they failed"
    to.counter("actor_risk_shadows_dropped", told, series=[((), state.shadows_dropped)])
    if state.log is not None:
        _write_log(to, state.log)


def _write_log(to: Exposition, log: LogCounts) -> None:
    told = "Decisions of the decision log: logged, shipped to the event log, or lost on the way to one of them"
    outcomes = [((outcome,), getattr(log, outcome)) for outcome in _OUTCOMES]
    to.counter("actor_risk_decision_log_decisions", told, ["outcome"], outcomes)
    told = "Old files of the decision log that were deleted to make room"
    to.counter("actor_risk_decision_log_deleted_files", told, series=[((), log.deleted_files)])
    to.gauge("actor_risk_decision_log_waiting", "Decisions that wait to be written", series=[((), log.waiting)])
    told = "Bytes in the decision log's folder, of all replicas, that wait for the event log"
    to.gauge("actor_risk_decision_log_unshipped_bytes", told, series=[((), log.unshipped_bytes)])
