"""What importing a model needs from this installation: its feature service, and real rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore
from numpy.typing import NDArray

from actor_risk.errors import ActorRiskError
from actor_risk.home import Home
from actor_risk.training import RECIPES, build_training_set
from materialize.definitions import open_feature_store
from models.conformance import Expected

Floats = NDArray[np.float64]

SCORE_COLUMN = "score"
_FILE_BYTES_MAX = 2 * 2**30
_NO_REDIS = "redis://127.0.0.1:1/0"
"""The registry is read, no row is: nothing connects."""


def registry_of(here: Home) -> FeatureStore:
    """The feature store of a home, for its registry and its history alone; no Redis needs to run."""
    return open_feature_store(here.feature_repo, here.registry, here.given_redis_url or _NO_REDIS)


def read_rows(path: Path, refs: Sequence[str]) -> Floats:
    """The features of a Parquet file, float64[N, F] in the order of `refs`; columns `view:feature` or `feature`.

    Raises ActorRiskError for a file that is no table of these features.
    """
    table = _table(path)
    return np.column_stack([_column(path, table, ref) for ref in refs])


def read_expected(path: Path, refs: Sequence[str]) -> Expected:
    """Reference rows with a column `score`: what the model's own framework says of them."""
    table = _table(path)
    if SCORE_COLUMN not in table.column_names:
        raise ActorRiskError(f"{path} has no column {SCORE_COLUMN!r}: write the framework's scores of the rows into it")
    return Expected(read_rows(path, refs), _column(path, table, SCORE_COLUMN))


def labelled_rows(store: FeatureStore, here: Home, service: str, refs: Sequence[str], rows_max: int) -> Floats:
    """Point-in-time features of the labelled rows of a service. Raises ActorRiskError when it has no labels."""
    recipe = next((recipe for recipe in RECIPES.values() if recipe.service == service), None)
    if recipe is None:
        raise ActorRiskError(f"feature service {service!r} has no labelled rows to check with: give --rows FILE")
    found = build_training_set(store, recipe, here.data, rows_max)
    return np.ascontiguousarray(found.matrix[:, [found.refs.index(ref) for ref in refs]])


def _table(path: Path) -> pa.Table:
    if path.stat().st_size > _FILE_BYTES_MAX:
        raise ActorRiskError(f"{path} has more than {_FILE_BYTES_MAX:,} bytes: a sample of the rows will do")
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ActorRiskError(f"{path} is no Parquet file: {error}") from error


def _column(path: Path, table: pa.Table, ref: str) -> Floats:
    name = next((name for name in (ref, ref.split(":")[-1]) if name in table.column_names), None)
    if name is None:
        raise ActorRiskError(f"{path} has no column {ref!r}: it needs one for each feature that the graph reads")
    try:
        return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid as error:
        raise ActorRiskError(f"the column {name!r} of {path} is not of numbers: {error}") from error
