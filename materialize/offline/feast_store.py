"""The Feast OfflineStore plug-in: point-in-time values of batch views and of windows, from Parquet.

Name it in `feature_store.yaml`:

    offline_store:
      type: materialize.offline.feast_store.WindowedParquetOfflineStore
      rows_at_once: 250000   # rows of an entity dataframe that are computed, and written, together
      events_mib: 256        # events in memory at a time; with what sorting them takes, about three times as much
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureView, FileSource, RepoConfig
from feast import utils as feast_utils
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel
from pydantic import PositiveInt

from materialize.definitions import compile_view
from materialize.offline._columns import Ints
from materialize.offline._errors import HistoryError
from materialize.offline._history import read_history
from materialize.offline._knowledge import Knowledge
from materialize.offline._point_in_time import PointInTime
from materialize.offline._queries import MIB, Limits, ViewQuery
from materialize.offline._retrieval import ArrowRetrievalJob, PointInTimeJob

__all__ = [
    "EVENT_TIMESTAMP",
    "PointInTimeJob",
    "WindowedParquetOfflineStore",
    "WindowedParquetOfflineStoreConfig",
]

EVENT_TIMESTAMP = "event_timestamp"


class WindowedParquetOfflineStoreConfig(FeastConfigBaseModel):
    """Settings of the store: what a part of a retrieval may hold in memory."""

    type: Literal["materialize.offline.feast_store.WindowedParquetOfflineStore"] = (
        "materialize.offline.feast_store.WindowedParquetOfflineStore"
    )
    rows_at_once: PositiveInt = Limits.rows
    events_mib: PositiveInt = Limits.events_bytes // MIB


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
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The features as of each row's `event_timestamp`; rows keep their order and their other columns.

        Raises HistoryError for an entity dataframe that is none, lacks a key, or whose timestamps have no zone.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise HistoryError(_NO_FRAME[isinstance(entity_df, str)])
        entity_df = entity_df.reset_index(drop=True)
        wanted, on_demand = _requested(config, registry, feature_views, feature_refs)
        asked = PointInTime(
            tuple(_query(view, names, entity_df) for view, names in wanted),
            _as_of_times(entity_df),
            config.repo_path,
            filter_by_created_timestamp,
            Limits(config.offline_store.rows_at_once, config.offline_store.events_mib * MIB),
        )
        called = [[_called(view, name, full_feature_names) for name in names] for view, names in wanted]
        _check_names(entity_df, [name for names in called for name in names])
        own = _own_schema(entity_df)

        def parts(knowledge: Knowledge | None) -> Iterator[tuple[Ints, pa.Table]]:
            is_one = knowledge is not None or not len(entity_df)
            positions = iter([np.arange(len(entity_df))]) if is_one else asked.parts()
            for rows in positions:
                table = pa.Table.from_pandas(entity_df.iloc[rows], own, preserve_index=False)
                for names, values in zip(called, asked.values(rows, knowledge), strict=True):
                    for name, column in zip(names, values.columns, strict=True):
                        table = table.append_column(name, column)
                yield rows, table

        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=sorted(set(entity_df.columns) - {EVENT_TIMESTAMP}),
            min_event_timestamp=entity_df[EVENT_TIMESTAMP].min() if len(entity_df) else None,
            max_event_timestamp=entity_df[EVENT_TIMESTAMP].max() if len(entity_df) else None,
        )
        return PointInTimeJob(parts, config.repo_path, full_feature_names, on_demand, metadata)

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
                timestamp_field,
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

        return ArrowRetrievalJob(evaluate, config.repo_path)

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
                timestamp_field,
                created_timestamp_column,
                start_date,
                end_date,
            )

        return ArrowRetrievalJob(evaluate, config.repo_path)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], object] | None
    ) -> None:
        """Raises HistoryError: files that others read are not written anew for some rows."""
        raise HistoryError(
            f"view {feature_view.name!r}: rows are not pushed into history, since Parquet files are not appended to: "
            f"write a further file into the folder of its source {feature_view.batch_source.name!r}"
        )


def _pull(
    config: RepoConfig,
    source: DataSource,
    join_keys: list[str],
    features: list[str],
    timestamp_field: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
) -> pa.Table:
    if isinstance(source, FileSource) and not source.timestamp_field:  # as Feast describes a saved dataset
        source = FileSource(
            path=source.path, timestamp_field=timestamp_field, s3_endpoint_override=source.s3_endpoint_override
        )
    columns = [*join_keys, *features, timestamp_field, *([created] if created else [])]
    from_ms = None if start is None else _milliseconds(start)
    until_ms = None if end is None else _milliseconds(end) + 1
    return read_history(source, config.repo_path, from_ms, until_ms, list(dict.fromkeys(columns)))


_NO_FRAME = {
    True: "entities are given as a pandas DataFrame here, not as a query: history is read from Parquet, without SQL",
    False: "give the entities as a pandas DataFrame with their join keys and `event_timestamp`: without it there is no "
    "as-of time, and windows have no value of their own",
}


def _query(view: FeatureView, features: list[str], entity_df: pd.DataFrame) -> ViewQuery:
    compiled = compile_view(view)
    names = [view.projection.join_key_map.get(key.name, key.name) for key in compiled.join_keys]
    missing = [name for name in names if name not in entity_df.columns]
    if missing:
        raise HistoryError(f"the entity dataframe has no column {', '.join(missing)}, which view {view.name!r} needs")
    return ViewQuery(compiled, view.batch_source, tuple(features), [entity_df[name] for name in names])


def _check_names(entity_df: pd.DataFrame, called: list[str]) -> None:
    twice = sorted({name for name in called if called.count(name) > 1 or name in entity_df.columns})
    if twice:
        raise HistoryError(
            f"{', '.join(twice)} would be there twice: rename the entity dataframe's columns, or ask for "
            "full_feature_names"
        )


def _own_schema(entity_df: pd.DataFrame) -> pa.Schema:
    """One for all parts. Raises HistoryError for a column of several types."""
    try:
        return pa.Schema.from_pandas(entity_df, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise HistoryError(f"the entity dataframe has a column of several types: {error}; give it one") from error


def _called(view: FeatureView, name: str, full_feature_names: bool) -> str:
    return f"{view.projection.name_to_use()}__{name}" if full_feature_names else name


def _as_of_times(entity_df: pd.DataFrame) -> Ints:
    """The millisecond in which each row's time lies."""
    if EVENT_TIMESTAMP not in entity_df.columns:
        raise HistoryError(f"the entity dataframe has no column {EVENT_TIMESTAMP!r}: the time to read each row as of")
    column = entity_df[EVENT_TIMESTAMP]
    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        raise HistoryError(
            f"{EVENT_TIMESTAMP!r} has no time zone: give it one with pd.to_datetime(…, utc=True); none is guessed"
        )
    if column.isna().any():
        raise HistoryError(f"{EVENT_TIMESTAMP!r} is null in {column.isna().sum()} rows: leave them out")
    return np.asarray(
        column.dt.tz_convert("UTC").dt.tz_localize(None).dt.floor("ms").to_numpy("datetime64[ms]")
    ).astype(np.int64)


def _requested(
    config: RepoConfig, registry: BaseRegistry, feature_views: list[FeatureView], feature_refs: list[str]
) -> tuple[list[tuple[FeatureView, list[str]]], list[OnDemandFeatureView]]:
    """The stored views with the features needed of each, and the on-demand views among the references."""
    on_demand = feast_utils._get_requested_on_demand_feature_views(feature_refs, config.project, registry)
    stored, _ = feast_utils._get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
    return [(view, list(dict.fromkeys(names))) for view, names in stored.items()], on_demand


def _milliseconds(when: datetime) -> int:
    seconds: float = feast_utils.make_tzaware(when).timestamp()
    return round(seconds * 1000)
