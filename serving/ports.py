"""What scoring needs from the outside. The real ones come from the composition root, in-memory ones from the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from materialize.events import Event
from materialize.online import FeatureMatrix, ReadPlan
from models.explain import Explanation
from models.manifest import Manifest
from models.rollouts import Rollout
from models.scorer import Scores
from serving.logged import FeatureLayout, LoggedDecision

Floats = NDArray[np.float64]


class FeatureSource(Protocol):
    """Reads feature vectors: `materialize.online.FeatureReader`."""

    def plan(self, service: str) -> ReadPlan:
        """The compiled plan of a feature service. Raises UnknownServiceError."""
        ...

    def refresh(self) -> bool:
        """Read the registry again, so that `plan` gives what it says now. Returns whether it has changed.

        Raises OnlineStoreError or DefinitionError.
        """
        ...

    async def read_many(
        self,
        plan: ReadPlan,
        entities: Sequence[Mapping[str, Any]],
        as_of_ms: Sequence[int],
        requests: Sequence[Mapping[str, Any]] | None = None,
        events: Mapping[int, Event] = ...,
        *,
        in_part: bool = False,
    ) -> FeatureMatrix:
        """The features of each of `entities` as of its time, in one round trip; `events`: a position in `entities` →
        the event to merge in. Raises OnlineStoreUnavailableError. `in_part`: where a shard of the store is away, its
        rows count as not found, and `met.unread` tells."""
        ...

    def unread(
        self,
        plan: ReadPlan,
        entities: Mapping[str, Any],
        as_of_ms: int,
        *,
        event: Event | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> FeatureMatrix:
        """The features of one set of entities as if nothing were stored of them, without asking the store."""
        ...

    def shards_away(self) -> Sequence[str]:
        """The shards of the store that do not answer while others do, and why."""
        ...

    async def ping(self) -> None:
        """Return when the store answers. Raises OnlineStoreUnavailableError."""
        ...


class Model(Protocol):
    """One model version in memory: `models.bundle.Bundle`. Matrices are float64[N, F]."""

    manifest: Manifest
    version: str

    def vector(self, values: Floats) -> Floats:
        """Values as they were read (NaN: missing) → what the model reads."""
        ...

    def score(self, matrix: Floats) -> Scores:
        """Margins and scores, row by row."""
        ...

    def explain(self, matrix: Floats, deadline_ms: float | None = None) -> Explanation:
        """Base value and attributions, row by row; estimates end after about `deadline_ms` milliseconds."""
        ...

    def background_scores(self) -> Floats:
        """float64[B]: the scores of the rows that explanations compare with."""
        ...


class ModelSource(Protocol):
    """Loads models by alias or version: `models.store.ModelStore`."""

    def load(self, model: str, alias_or_version: str) -> Model:
        """A proven model. Raises models.errors.ModelError."""
        ...

    def resolve(self, model: str, alias_or_version: str) -> str:
        """The version meant by an alias, or the version itself. Raises models.errors.ModelError."""
        ...


class RolloutSource(Protocol):
    """What is rolled out: `models.rollouts.Rollouts`. All of it raises models.errors.ModelError."""

    def newest(self, model: str, beyond: int = 0) -> Rollout | None:
        """The entry that counts, if its number is above `beyond`."""
        ...

    def history(self, model: str, last: int | None = None) -> list[Rollout]:
        """The entries, or the `last` so many of them, oldest first."""
        ...


class Publisher(Protocol):
    """Appends one event to the log: `materialize.stream.log.AsyncEventLogPublisher`."""

    async def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Return when the event is acknowledged. Raises whatever the log raises."""
        ...


@dataclass(frozen=True, slots=True)
class LogCounts:
    """What a decision log has done since it began.

    logged: decisions that a killed process does not lose. dropped_full, dropped_failed: those that were lost, because
    too many waited, or because one could not be encoded. deleted_files: old files that made room. waiting: taken, and
    not logged yet. shipped: acknowledged by the event log, those of dead processes as well. unshippable: too large for
    it. lost_unshipped: deleted to make room before they were shipped. unshipped_bytes: what all processes together
    have to ship.
    """

    logged: int = 0
    dropped_full: int = 0
    dropped_failed: int = 0
    deleted_files: int = 0
    waiting: int = 0
    shipped: int = 0
    unshippable: int = 0
    lost_unshipped: int = 0
    unshipped_bytes: int = 0


class DecisionLog(Protocol):
    """Keeps decisions with what they were made from: `serving.decision_files.DecisionFiles`."""

    def wants(self, decision_id: str) -> bool:
        """Whether this decision is among those that are kept: always the same answer for the same id."""
        ...

    def append(self, entries: Sequence[LoggedDecision], layout: FeatureLayout) -> None:
        """Take the decisions of one round; `layout` names their features. They may be answered when this returns.

        Never waits for a network, and never raises: what is lost is counted.
        """
        ...

    def counts(self) -> LogCounts:
        """What has become of the decisions so far."""
        ...

    def notes(self) -> list[str]:
        """What does not work as it should, for /readyz."""
        ...


class AnswerStore(Protocol):
    """Keeps answers for a while: `materialize.online.ShortLived`. All of it raises OnlineStoreUnavailableError."""

    async def take(self, name: str, value: bytes, ttl_ms: int) -> bytes | None:
        """Set the value if there is none. Returns the one that there was, None when there was none; `value` itself when
        it was set, or there was one that has ended meanwhile."""
        ...

    async def put(self, name: str, value: bytes, ttl_ms: int) -> None:
        """Set the value, whatever there is."""
        ...

    async def delete(self, name: str) -> None:
        """Forget the value."""
        ...


class DecisionFinder(Protocol):
    """Finds kept decisions: `serving.decision_lookup.DecisionLookup`."""

    async def find(self, decision_id: str) -> bytes | None:
        """The decision as it was answered, JSON; None when it is not kept, or not any more, or that is no id.

        Raises DecisionsUnavailableError.
        """
        ...


class RecordProducer(Protocol):
    """Appends records to the event log in batches: `materialize.stream.log.EventLogProducer`."""

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Queue one record."""
        ...

    def flush(self, timeout_ms: int) -> None:
        """Return when all sent records are acknowledged. Raises whatever the log raises."""
        ...

    def close(self) -> None:
        """Flush, then free the connections. Raises as `flush` does."""
        ...
