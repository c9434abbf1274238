"""Staged events: one view's events of one chunk of time in a folder, one Arrow file for each shard of its entities.

A file has one batch of

    entity   dictionary<int32, binary>: what follows the prefix in the entity's Redis key
    time     int64, event time in ms
    id       uint64, the hash of the event's identity
    values   fixed_size_list<float64>[value columns], NaN for null
    hashes   fixed_size_list<uint64>[distinct columns], 0 for null

and says in its schema's metadata of which view it is, which shard of how many, and the XXH3 of its columns. A folder
appears whole or not at all. What is not exactly what was staged is refused: a row made of a part of its events would
be wrong, and nobody would see it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from materialize.events import hash_binary
from materialize.kernel import EventBlock, concat_blocks

Ints = np.ndarray[Any, np.dtype[np.int64]]

SHARDS_MAX = 1 << 16

_FINGERPRINT, _SHARD, _SHARDS, _CHECKSUM = b"view", b"shard", b"shards", b"xxh3"


class StagingError(ValueError):
    """A staged file is missing, damaged, or of something else. Gather its chunk again."""


@dataclass(frozen=True)
class StagedEvents:
    """Events with the entity of each: `entities[codes[i]]` is that of event i. entities: binary, each once. codes:
    int64[n]."""

    entities: pa.Array
    codes: Ints
    block: EventBlock


@dataclass(frozen=True)
class ShardName:
    """Which shard of which view: `fingerprint` is the view's."""

    fingerprint: int
    shard: int
    shards: int


def shards_of(entities: pa.Array, shards: int) -> Ints:
    """The shard of each entity, int64[n]: the same in every process and version of Python."""
    return (hash_binary(entities) % np.uint64(shards)).astype(np.int64)


def stage(events: StagedEvents, fingerprint: int, shards: int, folder: Path) -> tuple[int, ...]:
    """Write the events to `folder`, in place of what it had. Returns the size of each shard's file, bytes.

    Raises ValueError for a number of shards that is not from 1 to SHARDS_MAX.
    """
    if not 1 <= shards <= SHARDS_MAX:
        raise ValueError(f"{shards} shards: there may be from 1 to {SHARDS_MAX}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        sizes = []
        for shard, batch in enumerate(_batches(events, shards)):
            _write(_path(making, shard), batch, ShardName(fingerprint, shard, shards))
            sizes.append(_path(making, shard).stat().st_size)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return tuple(sizes)


def _batches(events: StagedEvents, shards: int) -> Iterator[pa.RecordBatch]:
    """The events of each shard, with only their entities in the dictionary."""
    of_entity = shards_of(events.entities, shards).astype(np.uint16)
    entities, entity_ends = _grouped(of_entity, shards)
    places = np.empty(len(entities), np.int32)  # of each entity among those of its shard
    places[entities] = np.arange(len(entities)) - np.repeat(entity_ends[:-1], np.diff(entity_ends))
    order, ends = _grouped(of_entity[events.codes], shards)
    for shard in range(shards):
        own = events.entities.take(pa.array(entities[entity_ends[shard] : entity_ends[shard + 1]]))
        chosen = order[ends[shard] : ends[shard + 1]]
        yield _batch(own, places[events.codes[chosen]], events.block.take(chosen))


def _grouped(groups: np.ndarray[Any, np.dtype[np.uint16]], count: int) -> tuple[Ints, Ints]:
    """The positions of each group's members, one group after the other, and where each group begins and ends."""
    ends = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=count))])
    return np.argsort(groups, kind="stable"), ends


def unstage(folders: Sequence[Path], fingerprint: int, shard: int) -> StagedEvents:
    """The events of one shard from all of these folders, one folder after the other.

    Raises StagingError for a file that is missing or not what was staged for this shard of this view, and for folders
    that do not agree in how many shards there are.
    """
    files = [_read(_path(folder, shard)) for folder in folders]
    odd = {name for name, _ in files} - {ShardName(fingerprint, shard, files[0][0].shards)}
    if odd:
        raise StagingError(
            f"{folders[0].parent}: shard {shard} is of another view or partition: gather all chunks again"
        )
    keys = pa.chunked_array([batch.column("entity") for _, batch in files]).unify_dictionaries()
    return StagedEvents(
        keys.chunk(0).dictionary,
        np.concatenate([chunk.indices.to_numpy() for chunk in keys.chunks]).astype(np.int64),
        concat_blocks([_block(batch) for _, batch in files]),
    )


def _batch(entities: pa.Array, codes: np.ndarray[Any, np.dtype[np.int32]], block: EventBlock) -> pa.RecordBatch:
    columns = {
        "entity": pa.DictionaryArray.from_arrays(pa.array(codes), entities),
        "time": pa.array(block.times),
        "id": pa.array(block.ids),
    }
    for name, numbers in (("values", block.values), ("hashes", block.hashes)):
        if numbers.shape[1]:
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), numbers.shape[1])
    return pa.record_batch(columns)


def _block(batch: pa.RecordBatch) -> EventBlock:
    return EventBlock(
        batch.column("time").to_numpy(),
        batch.column("id").to_numpy(),
        _numbers(batch, "values", np.float64),
        _numbers(batch, "hashes", np.uint64),
    )


def _numbers(batch: pa.RecordBatch, name: str, kind: Any) -> np.ndarray[Any, Any]:
    """A column of lists as an array of two dimensions; a view without such columns has none."""
    if name not in batch.schema.names:
        return np.empty((batch.num_rows, 0), kind)
    lists = batch.column(name)
    numbers: np.ndarray[Any, Any] = lists.flatten().to_numpy().reshape(-1, lists.type.list_size)
    return numbers


def _write(path: Path, batch: pa.RecordBatch, name: ShardName) -> None:
    said = {_FINGERPRINT: name.fingerprint, _SHARD: name.shard, _SHARDS: name.shards, _CHECKSUM: _checksum(batch)}
    batch = batch.replace_schema_metadata({key: b"%d" % number for key, number in said.items()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _read(path: Path) -> tuple[ShardName, pa.RecordBatch]:
    """What a file says it is, and its columns, mapped into memory. Raises StagingError."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        said = {key: int(number) for key, number in (batch.schema.metadata or {}).items()}
        name = ShardName(said[_FINGERPRINT], said[_SHARD], said[_SHARDS])
        is_whole = said[_CHECKSUM] == _checksum(batch)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise StagingError(f"{path}: no file of staged events, or not a whole one: gather its chunk again") from error
    if not is_whole:
        raise StagingError(f"{path}: damaged: gather its chunk again")
    return name, batch


def _checksum(batch: pa.RecordBatch) -> int:
    """The XXH3 of everything that is read of a batch."""
    block, keys = _block(batch), batch.column("entity")
    hashed = xxhash.xxh3_64()
    for numbers in (
        hash_binary(keys.dictionary),
        keys.indices.to_numpy(),
        block.times,
        block.ids,
        block.values,
        block.hashes,
    ):
        hashed.update(np.ascontiguousarray(numbers).data)
    return hashed.intdigest()


def _path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.arrow"
