"""Answers the requests of one model together: one read of features, one call of the model, one of the explainer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from materialize.online import FeatureMatrix, FeatureStatus, Met, OnlineStoreUnavailableError, ReadCounts
from serving import record
from serving.breaker import Breaker
from serving.clock import NS_PER_MS, Clock
from serving.decision import Degradation, Explain
from serving.inputs import Inputs
from serving.loading import ServedModel
from serving.logged import ReadRow, read_rows
from serving.ports import FeatureSource, Floats
from serving.rounds import Rounds
from serving.telemetry import ModelTally

ROUND_MAX = 32
"""So many are answered together: beyond, each costs hardly less, and the event loop is held up for longer."""

EXPLAIN_DEADLINE_MS = 20.0
"""An explanation that is estimated ends after about this long; exact ones take what they take, far less."""

_NEWEST_WEIGHS = 0.1


class Asked(Struct, frozen=True):
    """One request of a model. `until_ns`: by when it must be answered, monotonic."""

    inputs: Inputs
    explain: Explain
    until_ns: int | None


class Scored(Struct, frozen=True):
    """What became of one request. `margin` in the model's output space, `read_ms` the time of day when it was read."""

    served: ServedModel
    inputs: Inputs
    row: ReadRow
    counts: ReadCounts
    readings: record.Readings
    margin: float
    score: float
    explained: record.Explained
    read_ms: int
    as_of_ms: int
    degraded: list[Degradation]
    features_ms: float
    score_ms: float
    explain_ms: float
    is_alone: bool
    """Whether it was a round of its own."""


class ModelRounds:
    """The rounds of one served model."""

    def __init__(
        self, served: ServedModel, reader: FeatureSource, breaker: Breaker, clock: Clock, tally: ModelTally
    ) -> None:
        self.served = served
        self.tally = tally
        self._reads_all = np.array_equal(served.columns, np.arange(len(served.plan.features)))
        self._reader = reader
        self._breaker = breaker
        self._clock = clock
        self._explain_ns = 0.0
        """What explaining one row takes, as far as is known."""
        self.unread_ns = 0.0
        """What an answer without stored features takes, as far as is known."""
        self.rounds: Rounds[Asked, Scored] = Rounds(
            self._answer, size_max=ROUND_MAX, shared=(OnlineStoreUnavailableError,)
        )

    async def warm_up(self) -> None:
        """Answer once, and two at once, about nobody: what is compiled, mapped or connected at its first use is then.

        Raises OnlineStoreUnavailableError.
        """
        plan = self.served.plan
        entities: dict[str, str | int] = {key.name: "" if key.kind == "STRING" else 0 for key in plan.join_keys}
        nobody = Asked(Inputs(entities, None, {field.name: None for field in plan.request_fields}, 0), "full", None)
        for _ in range(2):  # what the first one took is no measure
            self.unread_ns = 0.0
            self.unread(nobody, "features_defaulted")
        for count in (1, 2):
            await self._answer([nobody] * count)

    async def _answer(self, asked: Sequence[Asked]) -> list[Scored]:
        monotonic_ns, begun_ns, read_ms = self._clock.monotonic_ns, self._clock.monotonic_ns(), self._clock.now_ms()
        times = [max(read_ms, ask.inputs.event_ms) for ask in asked]
        matrix = await self._breaker.call(
            lambda: self._reader.read_many(
                self.served.plan,
                [ask.inputs.entities for ask in asked],
                times,
                [ask.inputs.request for ask in asked],
                {n: ask.inputs.scored.event for n, ask in enumerate(asked) if ask.inputs.scored is not None},
                in_part=True,
            )
        )
        there_ns = monotonic_ns()
        self.tally.read(matrix, self.served.columns)
        rows = read_rows(matrix)
        readings, fed = self._readings(matrix, rows)
        scores = self.served.model.score(fed)
        scored_ns = monotonic_ns()
        explained, skipped = self._explained(asked, fed, readings, scored_ns)
        done_ns = monotonic_ns()
        features_ms, score_ms, explain_ms = (
            (stop - start) / NS_PER_MS
            for start, stop in ((begun_ns, there_ns), (there_ns, scored_ns), (scored_ns, done_ns))
        )
        counts = [matrix.met.of(n) for n in range(len(asked))]
        margins, values = scores.margin.tolist(), scores.score.tolist()
        answers = [
            Scored(
                self.served,
                ask.inputs,
                rows[n],
                counts[n],
                readings[n],
                margins[n],
                values[n],
                explained[n],
                read_ms,
                times[n],
                record.degradations(counts[n], explanation_skipped=n in skipped),
                features_ms,
                score_ms,
                explain_ms,
                len(asked) == 1,
            )
            for n, ask in enumerate(asked)
        ]
        for n, count in matrix.met.unread.items():
            answers[n].degraded.append(
                "features_partial" if count < len(self.served.plan.rows) else "features_defaulted"
            )
        return answers

    def unread(self, ask: Asked, why: Degradation) -> Scored:
        """The answer without any stored feature, from the request alone, as of an actor of whom nothing is known."""
        begun_ns, inputs, read_ms = self._clock.monotonic_ns(), ask.inputs, self._clock.now_ms()
        event = None if inputs.scored is None else inputs.scored.event
        as_of_ms = max(read_ms, inputs.event_ms)
        matrix = self._reader.unread(self.served.plan, inputs.entities, as_of_ms, event=event, request=inputs.request)
        rows = read_rows(matrix)
        readings, fed = self._readings(matrix, rows)
        scores = self.served.model.score(fed)
        took_ns = self._clock.monotonic_ns() - begun_ns
        self.unread_ns += (_NEWEST_WEIGHS if self.unread_ns else 1.0) * (took_ns - self.unread_ns)
        margin, score = float(scores.margin[0]), float(scores.score[0])
        counts, took_ms = matrix.met.of(0), took_ns / NS_PER_MS
        return _unexplained(self.served, ask, rows[0], counts, readings[0], margin, score, read_ms, why, took_ms)

    def fallback_score(self, ask: Asked, score: float) -> Scored:
        """The answer that is a policy's score and no model's; it has no margin but the score."""
        matrix, now_ms = _nothing(self.served), self._clock.now_ms()
        rows = read_rows(matrix)
        (readings,), _ = self._readings(matrix, rows)
        counts = matrix.met.of(0)
        return _unexplained(self.served, ask, rows[0], counts, readings, score, score, now_ms, "fallback_score")

    def _readings(self, matrix: FeatureMatrix, read: Sequence[ReadRow]) -> tuple[list[record.Readings], Floats]:
        """What was read for the model, row by row, and what the model is fed, float64[N, F]."""
        columns, features = self.served.columns, self.served.features
        if self._reads_all:
            readings = [record.Readings(features, row.values, row.statuses, row.ages_ms) for row in read]
            return readings, self.served.model.vector(matrix.values)
        values = matrix.values.take(columns, 1)
        statuses, ages_ms = matrix.statuses.take(columns, 1), matrix.ages_ms.take(columns, 1)
        rows = zip(values.tolist(), statuses.tolist(), ages_ms.tolist(), strict=True)
        return [record.Readings(features, *row) for row in rows], self.served.model.vector(values)

    def _explained(
        self, asked: Sequence[Asked], fed: Floats, readings: Sequence[record.Readings], now_ns: int
    ) -> tuple[list[record.Explained], set[int]]:
        """The explanations that are asked for and that there is time for, and who there was no time for."""
        explained = [record.UNEXPLAINED] * len(asked)
        wanted = [n for n, ask in enumerate(asked) if ask.explain != "none"]
        done_ns = now_ns + self._explain_ns * len(wanted)
        in_time = [n for n in wanted if _until(asked[n]) >= done_ns]
        if in_time:
            rows = fed if len(in_time) == len(asked) else fed[in_time]
            explanation = self.served.model.explain(rows, EXPLAIN_DEADLINE_MS)
            found = record.explained(
                explanation,
                [readings[n] for n in in_time],
                self.served.reasons,
                [asked[n].explain == "full" for n in in_time],
            )
            for n, one in zip(in_time, found, strict=True):
                explained[n] = one
            took_ns = (self._clock.monotonic_ns() - now_ns) / len(in_time)
            self._explain_ns += _NEWEST_WEIGHS * (took_ns - self._explain_ns)
        return explained, set(wanted).difference(in_time)


def _unexplained(
    served: ServedModel,
    ask: Asked,
    row: ReadRow,
    counts: ReadCounts,
    readings: record.Readings,
    margin: float,
    score: float,
    read_ms: int,
    why: Degradation,
    took_ms: float = 0.0,
) -> Scored:
    """An answer that stands instead of another."""
    as_of_ms = max(read_ms, ask.inputs.event_ms)
    degraded = [*record.degradations(counts, explanation_skipped=ask.explain != "none"), why]
    return Scored(
        served, ask.inputs, row, counts, readings, margin, score, record.UNEXPLAINED, read_ms, as_of_ms, degraded,
        0.0, took_ms, 0.0, False,
    )  # fmt: skip


def _nothing(served: ServedModel) -> FeatureMatrix:
    """What is read of one entity of whom nothing is stored."""
    shape = (1, len(served.plan.features))
    statuses = np.full(shape, FeatureStatus.NOT_FOUND, np.uint8)
    return FeatureMatrix(
        served.plan, np.full(shape, np.nan), statuses, np.full(shape, -1, np.int64), {}, Met(np.zeros(1, np.int64))
    )


def _until(ask: Asked) -> float:
    return np.inf if ask.until_ns is None else ask.until_ns
