"""The Feast OfflineStore plug-in: point-in-time values of batch views and of windows, from Parquet.

Name it in `feature_store.yaml`:

    offline_store:
      type: materialize.offline.feast_store.WindowedParquetOfflineStore
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, RepoConfig
from feast import utils as feast_utils
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage

from materialize.definitions import StreamView, View, compile_view
from materialize.offline._errors import HistoryError
from materialize.offline._history import read_history
from materialize.offline._knowledge import Knowledge
from materialize.offline._point_in_time import ViewColumns, event_history, values_of_view

EVENT_TIMESTAMP = "event_timestamp"
AT_ONCE = min(os.cpu_count() or 1, 4)
"""Views of one source whose values are computed at a time: most of the work is compiled, and needs no interpreter."""

_Wanted = tuple[FeatureView, list[str]]
"""A view, and the features that are asked of it."""


class WindowedParquetOfflineStoreConfig(FeastConfigBaseModel):
    """Settings of the store: there are none."""

    type: Literal["materialize.offline.feast_store.WindowedParquetOfflineStore"] = (
        "materialize.offline.feast_store.WindowedParquetOfflineStore"
    )


class ArrowRetrievalJob(RetrievalJob):
    """A retrieval that is evaluated when its result is asked for."""

    def __init__(
        self,
        evaluate: Callable[[], pa.Table],
        full_feature_names: bool,
        on_demand_feature_views: list[OnDemandFeatureView],
        metadata: RetrievalMetadata | None,
        repo_path: Path | None,
    ) -> None:
        self._evaluate = evaluate
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views
        self._metadata = metadata
        self._repo_path = repo_path

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._evaluate()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._evaluate().to_pandas()
        return frame

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result as one Parquet file. Raises HistoryError when there is one and it may not be replaced."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise HistoryError(f"a {type(storage).__name__} cannot hold the result: use SavedDatasetFileStorage")
        path = Path(FileSource.get_uri_for_file_path(self._repo_path, storage.file_options.uri))
        if path.exists() and not allow_overwrite:
            raise HistoryError(f"{path} exists: choose another place, or allow overwriting it")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.to_arrow(), path)


class PointInTimeJob(ArrowRetrievalJob):
    """What `get_historical_features` gives; the same rows can be asked for with other knowledge."""

    def __init__(
        self,
        retrieve: Callable[[Knowledge | None], pa.Table],
        full_feature_names: bool,
        on_demand_feature_views: list[OnDemandFeatureView],
        metadata: RetrievalMetadata | None,
        repo_path: Path | None,
        knowledge: Knowledge | None = None,
    ) -> None:
        super().__init__(lambda: retrieve(knowledge), full_feature_names, on_demand_feature_views, metadata, repo_path)
        self._retrieve = retrieve

    def knowing(self, knowledge: Knowledge) -> PointInTimeJob:
        """The same retrieval, each row with its own knowledge: see `Knowledge`."""
        return PointInTimeJob(
            self._retrieve,
            self._full_feature_names,
            self._on_demand_feature_views,
            self._metadata,
            self._repo_path,
            knowledge,
        )

    def stored(self) -> pa.Table:
        """The rows with their stored features only: what on-demand functions are given."""
        return self._evaluate()

    def with_on_demand(self, stored: pa.Table) -> pa.Table:
        """The features of rows that `stored` gave, on-demand functions run. Raises whatever these raise."""
        table: pa.Table = ArrowRetrievalJob(
            lambda: stored, self._full_feature_names, self._on_demand_feature_views, self._metadata, self._repo_path
        ).to_arrow()
        return table


class WindowedParquetOfflineStore(OfflineStore):
    """Point-in-time values by the same kernel that serves them."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """The features as of each row's `event_timestamp`; rows keep their order and their other columns.

        Raises HistoryError for an entity dataframe that is none, or whose timestamps have no zone.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise HistoryError("give the entities as a pandas DataFrame with their join keys and `event_timestamp`")
        times = _as_of_times(entity_df)
        wanted, on_demand = _requested(config, registry, feature_views, feature_refs)

        def retrieve(knowledge: Knowledge | None) -> pa.Table:
            table = pa.Table.from_pandas(entity_df.reset_index(drop=True), preserve_index=False)
            found: dict[str, pa.ChunkedArray] = {}
            for views in _by_source(wanted):
                found |= _values(
                    config, views, entity_df, times, full_feature_names, filter_by_created_timestamp, knowledge
                )
            for view, names in wanted:
                for name in names:
                    called = _called(view, name, full_feature_names)
                    table = table.append_column(called, found[called])
            return table

        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=sorted(set(entity_df.columns) - {EVENT_TIMESTAMP}),
            min_event_timestamp=entity_df[EVENT_TIMESTAMP].min() if len(entity_df) else None,
            max_event_timestamp=entity_df[EVENT_TIMESTAMP].max() if len(entity_df) else None,
        )
        return PointInTimeJob(retrieve, full_feature_names, on_demand, metadata, config.repo_path)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each entity with start ≤ event time ≤ end; ties go to the later created."""

        def evaluate() -> pa.Table:
            table = _pull(
                config,
                data_source,
                join_key_columns,
                feature_name_columns,
                created_timestamp_column,
                start_date,
                end_date,
            )
            order = [(timestamp_field, "ascending")]
            if created_timestamp_column:
                order.append((created_timestamp_column, "ascending"))
            frame = table.sort_by(order).to_pandas()
            newest = frame.drop_duplicates(join_key_columns, keep="last") if join_key_columns else frame.tail(1)
            return pa.Table.from_pandas(newest, schema=table.schema, preserve_index=False)

        return ArrowRetrievalJob(evaluate, False, [], None, config.repo_path)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows with start ≤ event time ≤ end."""

        def evaluate() -> pa.Table:
            return _pull(
                config,
                data_source,
                join_key_columns,
                feature_name_columns,
                created_timestamp_column,
                start_date,
                end_date,
            )

        return ArrowRetrievalJob(evaluate, False, [], None, config.repo_path)


def _pull(
    config: RepoConfig,
    source: DataSource,
    join_keys: list[str],
    features: list[str],
    created: str | None,
    start: datetime | None,
    end: datetime | None,
) -> pa.Table:
    columns = [*join_keys, *features, source.timestamp_field, *([created] if created else [])]
    from_ms = None if start is None else _milliseconds(start)
    until_ms = None if end is None else _milliseconds(end) + 1
    return read_history(source, config.repo_path, from_ms, until_ms, list(dict.fromkeys(columns)))


def _requested(
    config: RepoConfig, registry: BaseRegistry, feature_views: list[FeatureView], feature_refs: list[str]
) -> tuple[list[tuple[FeatureView, list[str]]], list[OnDemandFeatureView]]:
    """The stored views with the features needed of each, and the on-demand views among the references."""
    on_demand = feast_utils._get_requested_on_demand_feature_views(feature_refs, config.project, registry)
    stored, _ = feast_utils._get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
    return [(view, list(dict.fromkeys(names))) for view, names in stored.items()], on_demand


def _by_source(wanted: list[_Wanted]) -> list[list[_Wanted]]:
    """The views that read the same source, together: its events are in memory once, and one source at a time."""
    groups: dict[tuple[type, str], list[_Wanted]] = defaultdict(list)
    for view, names in wanted:
        groups[type(view), view.batch_source.name].append((view, names))
    return list(groups.values())


def _values(
    config: RepoConfig,
    wanted: list[_Wanted],
    entity_df: pd.DataFrame,
    times: np.ndarray[Any, np.dtype[np.int64]],
    full_feature_names: bool,
    known_as_of: bool,
    knowledge: Knowledge | None,
) -> dict[str, pa.ChunkedArray]:
    """The columns of views that read one source, by the name that each has in the result."""
    compiled = [(compile_view(view), view, names) for view, names in wanted]
    keys = [_query_keys(own, view, entity_df) for own, view, _ in compiled]
    windows = [own for own, _, _ in compiled if isinstance(own, StreamView)]
    source, history = wanted[0][0].batch_source, None
    if windows and len(times) and not known_as_of:
        history = event_history(windows, source, config.repo_path, times, knowledge is not None)

    def columns(wanted: tuple[View, FeatureView, list[str]], queried: list[np.ndarray[Any, Any]]) -> ViewColumns:
        own, _, names = wanted
        return values_of_view(own, source, config.repo_path, names, queried, times, known_as_of, history, knowledge)

    found: dict[str, pa.ChunkedArray] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (_, view, _), values in zip(compiled, pool.map(columns, compiled, keys), strict=True):
            for name, column in zip(values.names, values.columns, strict=True):
                found[_called(view, name, full_feature_names)] = column
    return found


def _query_keys(compiled: View, view: FeatureView, entity_df: pd.DataFrame) -> list[np.ndarray[Any, Any]]:
    names = [view.projection.join_key_map.get(key.name, key.name) for key in compiled.join_keys]
    missing = [name for name in names if name not in entity_df.columns]
    if missing:
        raise HistoryError(f"the entity dataframe has no column {', '.join(missing)}, which view {view.name!r} needs")
    return [entity_df[name].to_numpy() for name in names]


def _called(view: FeatureView, name: str, full_feature_names: bool) -> str:
    return f"{view.projection.name_to_use()}__{name}" if full_feature_names else name


def _as_of_times(entity_df: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    if EVENT_TIMESTAMP not in entity_df.columns:
        raise HistoryError(f"the entity dataframe has no column {EVENT_TIMESTAMP!r}: the time to read each row as of")
    column = entity_df[EVENT_TIMESTAMP]
    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        raise HistoryError(
            f"{EVENT_TIMESTAMP!r} has no time zone: give it one with pd.to_datetime(…, utc=True); none is guessed"
        )
    if column.isna().any():
        raise HistoryError(f"{EVENT_TIMESTAMP!r} is null in {column.isna().sum()} rows: leave them out")
    utc = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(utc.to_numpy("datetime64[ms]").astype(np.int64))


def _milliseconds(when: datetime) -> int:
    seconds: float = feast_utils.make_tzaware(when).timestamp()
    return round(seconds * 1000)
