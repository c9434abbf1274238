"""Events as one view sees them: times, identities, and the columns that it aggregates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from materialize.kernel._partials import Floats, Hashes, Ints


@dataclass(frozen=True)
class EventBlock:
    """`n` events of one view.

    times: int64[n], event time in milliseconds. ids: uint64[n], the hash of each event's identity. values:
    float64[n, value columns], NaN for null. hashes: uint64[n, distinct columns], 0 for null.
    """

    times: Ints
    ids: Hashes
    values: Floats
    hashes: Hashes

    def __len__(self) -> int:
        return len(self.times)

    def take(self, index: Any) -> EventBlock:
        """The events that `index` (positions, mask or slice) selects."""
        return EventBlock(self.times[index], self.ids[index], self.values[index], self.hashes[index])

    def in_order(self) -> EventBlock:
        """The events by time, then identity, each identity once."""
        block = self.take(np.lexsort((self.ids, self.times))) if len(self) > 1 else self
        ids = np.sort(block.ids)
        if not (ids[1:] == ids[:-1]).any():
            return block
        _, first = np.unique(block.ids, return_index=True)
        return block.take(np.sort(first))


def empty_block(value_columns: int, distinct_columns: int) -> EventBlock:
    """A block of no events."""
    return EventBlock(
        np.empty(0, np.int64),
        np.empty(0, np.uint64),
        np.empty((0, value_columns), np.float64),
        np.empty((0, distinct_columns), np.uint64),
    )


def concat_blocks(blocks: Sequence[EventBlock]) -> EventBlock:
    """The events of all blocks, one block after the other."""
    return EventBlock(
        np.concatenate([block.times for block in blocks]),
        np.concatenate([block.ids for block in blocks]),
        np.concatenate([block.values for block in blocks]),
        np.concatenate([block.hashes for block in blocks]),
    )


def hash_value(value: object) -> int:
    """A stable 64-bit hash of one value; 0 for null (None or NaN). Equal numbers hash equal whatever their type."""
    if value is None or value != value:
        return 0
    if isinstance(value, (bool, int, float, np.number)):
        data = repr(float(value) + 0.0).encode()
    else:
        data = value if isinstance(value, bytes) else str(value).encode()
    return xxhash.xxh3_64_intdigest(data) or 1


def hash_values(values: Sequence[object] | np.ndarray[Any, Any]) -> Hashes:
    """The hash of each value, uint64[n]."""
    digest = xxhash.xxh3_64_intdigest
    hashes = [(digest(value.encode()) or 1) if type(value) is str else hash_value(value) for value in values]
    return np.array(hashes, dtype=np.uint64)
