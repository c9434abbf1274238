"""Retrievals as Feast has them: evaluated when their result is asked for, at once or in parts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage

from materialize.offline._columns import Ints
from materialize.offline._declared import ARROW_TYPES
from materialize.offline._errors import HistoryError
from materialize.offline._history import file_place
from materialize.offline._knowledge import Knowledge


class ArrowRetrievalJob(RetrievalJob):
    """A retrieval whose result is one Arrow table."""

    def __init__(
        self,
        evaluate: Callable[[], pa.Table],
        repo_path: Path | None,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._repo_path = repo_path
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def to_arrow_parts(self) -> Iterator[pa.Table]:
        """The result in tables of one schema, on-demand features included."""
        yield self.to_arrow()

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result to one Parquet file, part by part; it is there when it is whole.

        Raises HistoryError when there is one and it may not be replaced.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise HistoryError(f"a {type(storage).__name__} cannot hold the result: use SavedDatasetFileStorage")
        where = FileSource.get_uri_for_file_path(self._repo_path, storage.file_options.uri)
        filesystem, path = file_place(where, storage.file_options.s3_endpoint_override)
        if filesystem.get_file_info(path).type != pafs.FileType.NotFound and not allow_overwrite:
            raise HistoryError(f"{where} exists: choose another place, or allow overwriting it")
        write_parts(self.to_arrow_parts(), filesystem, path)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._evaluate()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._evaluate().to_pandas()
        return frame


class PointInTimeJob(ArrowRetrievalJob):
    """What `get_historical_features` gives: rows in parts, or once more with other knowledge.

    parts: gives the positions of each part's rows, and its table, all of one schema; with knowledge, one part.
    """

    def __init__(
        self,
        parts: Callable[[Knowledge | None], Iterator[tuple[Ints, pa.Table]]],
        repo_path: Path | None,
        full_feature_names: bool,
        on_demand_feature_views: list[OnDemandFeatureView],
        metadata: RetrievalMetadata | None,
        knowledge: Knowledge | None = None,
    ) -> None:
        super().__init__(self._whole, repo_path, full_feature_names, on_demand_feature_views, metadata)
        self._parts = parts
        self._knowledge = knowledge

    def knowing(self, knowledge: Knowledge) -> PointInTimeJob:
        """The same retrieval, each row with its own knowledge: see `Knowledge`."""
        return PointInTimeJob(
            self._parts,
            self._repo_path,
            self._full_feature_names,
            self._on_demand_feature_views,
            self._metadata,
            knowledge,
        )

    def stored(self) -> pa.Table:
        """The rows with their stored features only: what on-demand functions are given."""
        return self._evaluate()

    def with_on_demand(self, stored: pa.Table) -> pa.Table:
        """The features of rows that `stored` gave, on-demand functions run. Raises whatever these raise."""
        table: pa.Table = ArrowRetrievalJob(
            lambda: stored, self._repo_path, self._full_feature_names, self._on_demand_feature_views, self._metadata
        ).to_arrow()
        return table

    def to_arrow_parts(self) -> Iterator[pa.Table]:
        """The result by growing event time, as much at a time as the store's `rows_at_once` allows."""
        schema: pa.Schema | None = None
        for _, table in self._parts(self._knowledge):
            found = self._as_declared(self.with_on_demand(table))
            schema = found.schema if schema is None else schema
            yield found.cast(schema)

    def _whole(self) -> pa.Table:
        """All rows in the order in which they were asked for."""
        places, tables = zip(*self._parts(self._knowledge), strict=True)
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(places))))

    def _as_declared(self, table: pa.Table) -> pa.Table:
        """On-demand features of a part in their declared types: a part may hold nothing but nulls."""
        for view in self._on_demand_feature_views:
            for field in view.features:
                name = f"{view.projection.name_to_use()}__{field.name}" if self._full_feature_names else field.name
                kind = ARROW_TYPES.get(field.dtype.to_value_type().name)
                if kind is not None and name in table.column_names:
                    place = table.column_names.index(name)
                    table = table.set_column(place, name, table.column(name).cast(kind))
        return table


def write_parts(parts: Iterator[pa.Table], filesystem: pafs.FileSystem, path: str) -> None:
    """One Parquet file of all parts, one in memory at a time. A write that fails leaves what was there before."""
    if not isinstance(filesystem, pafs.LocalFileSystem):  # an object is there when its stream is closed
        _write(parts, filesystem, path)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        _write(parts, filesystem, str(unfinished))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _write(parts: Iterator[pa.Table], filesystem: pafs.FileSystem, path: str) -> None:
    first = next(parts)
    with filesystem.open_output_stream(path) as stream, pq.ParquetWriter(stream, first.schema) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)
