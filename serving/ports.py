"""What scoring needs from the outside. The real ones come from the composition root, in-memory ones from the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from materialize.events import Event
from materialize.online import FeatureVector, ReadPlan
from models.explain import Explanation
from models.manifest import Manifest
from models.scorer import Scores

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

    async def read(
        self,
        plan: ReadPlan,
        entities: Mapping[str, Any],
        as_of_ms: int,
        *,
        event: Event | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> FeatureVector:
        """One vector as of a time, with the event merged in. Raises OnlineStoreUnavailableError."""
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


class ModelSource(Protocol):
    """Loads models by alias or version: `models.store.ModelStore`."""

    def load(self, model: str, alias_or_version: str) -> Model:
        """A proven model. Raises models.errors.ModelError."""
        ...


class Publisher(Protocol):
    """Appends one event to the log: `materialize.stream.log.AsyncEventLogPublisher`."""

    async def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Return when the event is acknowledged. Raises whatever the log raises."""
        ...
