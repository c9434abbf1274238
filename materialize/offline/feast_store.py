"""The Feast OfflineStore plug-in: point-in-time values of batch views and of windows, from Parquet.

Name it in `feature_store.yaml`:

    offline_store:
      type: materialize.offline.feast_store.WindowedParquetOfflineStore
"""

from __future__ import annotations

from collections.abc import Callable
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

from materialize.definitions import compile_view
from materialize.offline._errors import HistoryError
from materialize.offline._history import read_history
from materialize.offline._point_in_time import values_of_view

EVENT_TIMESTAMP = "event_timestamp"


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

        def evaluate() -> pa.Table:
            table = pa.Table.from_pandas(entity_df.reset_index(drop=True), preserve_index=False)
            for view, names in wanted:
                table = _with_view(
                    table, config, view, names, entity_df, times, full_feature_names, filter_by_created_timestamp
                )
            return table

        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=sorted(set(entity_df.columns) - {EVENT_TIMESTAMP}),
            min_event_timestamp=entity_df[EVENT_TIMESTAMP].min() if len(entity_df) else None,
            max_event_timestamp=entity_df[EVENT_TIMESTAMP].max() if len(entity_df) else None,
        )
        return ArrowRetrievalJob(evaluate, full_feature_names, on_demand, metadata, config.repo_path)

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


def _with_view(
    table: pa.Table,
    config: RepoConfig,
    view: FeatureView,
    names: list[str],
    entity_df: pd.DataFrame,
    times: np.ndarray[Any, np.dtype[np.int64]],
    full_feature_names: bool,
    known_as_of: bool,
) -> pa.Table:
    compiled = compile_view(view)
    key_names = [view.projection.join_key_map.get(key.name, key.name) for key in compiled.join_keys]
    missing = [name for name in key_names if name not in entity_df.columns]
    if missing:
        raise HistoryError(f"the entity dataframe has no column {', '.join(missing)}, which view {view.name!r} needs")
    keys = [entity_df[name].to_numpy() for name in key_names]
    values = values_of_view(compiled, view.batch_source, config.repo_path, names, keys, times, known_as_of)
    for name, column in zip(values.names, values.columns, strict=True):
        called = f"{view.projection.name_to_use()}__{name}" if full_feature_names else name
        table = table.append_column(called, column)
    return table


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
