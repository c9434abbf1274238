"""Our side of the feature benchmark: the packed rows, read and written as serving, stream and backfill do it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import redis
import redis.asyncio

from bench.actors import SERVICE, Actors, FeastRow, is_integer, open_store
from bench.peers.feast_redis import Names
from bench.timing import Timed, awaited, each, fastest
from materialize.definitions import BatchView, StreamView
from materialize.kernel import Row
from materialize.online import (
    BatchRow,
    FeatureReader,
    FeatureReaderSync,
    FieldValue,
    KeyEncoder,
    RowWriter,
    StreamRow,
    encode_batch_columns,
)

IdentifiedRow = tuple[str, BatchRow]
Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Columns:
    """Rows as the backfill has them: ids, an Arrow array for each field, event times int64[n]."""

    ids: tuple[str, ...]
    arrays: list[pa.Array]
    times: np.ndarray[Any, np.dtype[np.int64]]


class Packed:
    """A store of the given Feast objects on the packed rows."""

    def __init__(self, directory: Path, project: str, url: str, objects: list[Any], runner: asyncio.Runner) -> None:
        settings: dict[str, object] = {
            "type": "materialize.online.feast_store.PackedRedisOnlineStore",
            "connection_string": url,
        }
        self.store = open_store(directory, project, settings, objects)
        self.client = redis.Redis.from_url(url)
        self._runner = runner
        self._reader = FeatureReader(redis.asyncio.Redis.from_url(url), self.store)
        self._sync = FeatureReaderSync(redis.Redis.from_url(url), self.store)
        self.plan = self._reader.plan(SERVICE)
        self.features = [name.split(":")[1] for name in self.plan.features]
        self._writer = RowWriter(self.client)
        self._online = self.store._get_provider().online_store

    def close(self) -> None:
        """Give the connections back."""
        self._runner.run(self._reader.close())
        self._sync.close()
        self.client.close()

    def keys(self, name: str) -> list[bytes]:
        """The keys of an actor's rows."""
        return [row.encoder.key([name]) for row in self.plan.rows]

    def view(self, name: str) -> BatchView | StreamView:
        """A compiled view of the plan."""
        return next(row.view for row in self.plan.rows if row.view.name == name)

    def write(self, view: int, rows: list[FeastRow]) -> None:
        """As Feast calls the plug-in."""
        table = self.store.get_feature_view(f"profile_{view}")
        self._online.online_write_batch(self.store.config, table, rows, None)

    def write_rows(self, view: int, rows: Sequence[IdentifiedRow]) -> None:
        """Row by row, from Python values."""
        table, encoder = self._batch(view)
        self._writer.write_batch_rows(table, [(encoder.key([name]), row) for name, row in rows])

    def write_windows(self, name: str, rows: dict[str, Row]) -> None:
        """Windowed rows, as the stream worker writes them."""
        view = self.view(name)
        assert isinstance(view, StreamView)
        encoder = next(read.encoder for read in self.plan.rows if read.view is view)
        changes = {
            encoder.key([who]): lambda stored, row=row: StreamRow(row, stored.version, {0: 1})
            for who, row in rows.items()
        }
        self._writer.update_stream_rows(view, changes)

    def write_columns(self, view: int, rows: Columns) -> None:
        """As the backfill writes: keys and rows from columns, then to Redis."""
        table, encoder = self._batch(view)
        data = encode_batch_columns(table, rows.arrays, rows.times, np.zeros_like(rows.times))
        self._writer.write_sealed_rows(table, encoder.keys([(name,) for name in rows.ids]), data)

    def matrix(self, form: str, names: Names, as_of_ms: int) -> Matrix:
        """What a form of reading gives, float64[actors, features] in the plan's order."""
        got: list[Matrix] = []
        self._forms(as_of_ms, got.append)[form]([names])
        return got[0]

    def forms(self, names: Names) -> list[str]:
        """The forms of reading that there are for so many actors."""
        return [form for form in self._forms(0, _nothing) if not form.startswith("vector") or len(names) == 1]

    def fastest_read(self, trial: Sequence[Names], as_of_ms: int) -> tuple[str, Timed[Names]]:
        """The fastest form of reading into a float matrix, by trial, and its name."""
        forms = self._forms(as_of_ms, _nothing)
        return fastest({form: forms[form] for form in self.forms(trial[0])}, trial)

    def _batch(self, view: int) -> tuple[BatchView, KeyEncoder]:
        read = next(read for read in self.plan.rows if read.view.name == f"profile_{view}")
        assert isinstance(read.view, BatchView)
        return read.view, read.encoder

    def _forms(self, as_of_ms: int, take: Callable[[Matrix], object]) -> dict[str, Timed[Names]]:
        """vector: what serving awaits for one actor; matrix: for many; …_sync: the same without an event loop."""

        async def vector(names: Names) -> None:
            (name,) = names
            take((await self._reader.read(self.plan, {"actor": name}, as_of_ms)).values[np.newaxis])

        async def matrix(names: Names) -> None:
            take((await self._reader.read_many(self.plan, [{"actor": name} for name in names], as_of_ms)).values)

        def vector_sync(names: Names) -> None:
            (name,) = names
            take(self._sync.read(self.plan, {"actor": name}, as_of_ms).values[np.newaxis])

        def matrix_sync(names: Names) -> None:
            take(self._sync.read_many(self.plan, [{"actor": name} for name in names], as_of_ms).values)

        return {
            "vector": lambda items: self._runner.run(awaited(vector, items)),
            "matrix": lambda items: self._runner.run(awaited(matrix, items)),
            "vector_sync": each(vector_sync),
            "matrix_sync": each(matrix_sync),
        }


def _nothing(_: Matrix) -> None:
    """Takes what nobody looks at."""


def as_rows(actors: Actors, features: range, time_ms: int) -> list[IdentifiedRow]:
    """Rows of those features as Python values."""
    return [
        (name, BatchRow(time_ms, 0, _stored(row[features.start : features.stop], features)))
        for name, row in zip(actors.ids, actors.values.tolist(), strict=True)
    ]


def as_columns(actors: Actors, features: range, time_ms: int) -> Columns:
    """The same rows as Arrow columns, of the type that each feature has in history."""
    arrays = [
        pa.array(actors.values[:, i], from_pandas=True).cast(pa.int64() if is_integer(i) else pa.float64())
        for i in features
    ]
    return Columns(actors.ids, arrays, np.full(len(actors.ids), time_ms))


def _stored(values: Sequence[float], features: range) -> tuple[FieldValue, ...]:
    return tuple(
        None if value != value else int(value) if is_integer(i) else value
        for i, value in zip(features, values, strict=True)
    )
