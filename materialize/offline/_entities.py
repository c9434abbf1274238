"""The entities that are asked for, numbered, so that history is told apart by small integers and the rest is let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from materialize.definitions import JoinKey
from materialize.offline._errors import HistoryError
from materialize.personal import told

Numbers = np.ndarray[Any, np.dtype[np.int64]]

_TEXT = (pa.types.is_string, pa.types.is_large_string)
_BINARY = (pa.types.is_binary, pa.types.is_large_binary)
_WHOLE = (pa.types.is_integer, pa.types.is_floating)
_KINDS: dict[str, tuple[pa.DataType, tuple[Any, ...], str]] = {
    "STRING": (pa.string(), _TEXT, "text: convert it with .astype(str)"),
    "INT64": (pa.int64(), _WHOLE, "integers: convert it with .astype('Int64')"),
    "INT32": (pa.int64(), _WHOLE, "integers: convert it with .astype('Int64')"),
    "BYTES": (pa.binary(), _BINARY, "bytes"),
    "BOOL": (pa.bool_(), (pa.types.is_boolean,), "booleans"),
}
"""For the type of a join key what its values become, what they may be, and how an error calls that."""


@dataclass(frozen=True)
class Entities:
    """The entities of one view that are asked for, by number from 0.

    of_rows: int64[q], the number of each queried row, −1 for one whose key is null.
    """

    keys: tuple[JoinKey, ...]
    of_rows: Numbers
    count: int
    _words: tuple[pa.Array, ...]
    _pairs: tuple[Numbers, ...]

    def numbers(self, columns: Sequence[pa.Array], where: str, rows: int) -> Numbers:
        """The number of each of `rows` rows of history, −1 for an entity that is not asked for and for a null key.

        columns: for each join key. where: what an error calls the place. Raises HistoryError for keys of another type.
        """
        if not self.keys:
            return np.zeros(rows, np.int64)
        parts = [
            pc.index_in(_as_key(key, column, where), value_set=words)
            for key, column, words in zip(self.keys, columns, self._words, strict=True)
        ]
        found = [pc.fill_null(part, -1).to_numpy(zero_copy_only=False).astype(np.int64) for part in parts]
        numbers: Numbers = found[0]
        for more, words, pairs in zip(found[1:], self._words[1:], self._pairs, strict=True):
            numbers = _positions(pairs, _paired(numbers, more, len(words)))
        return numbers


def entities_of(keys: tuple[JoinKey, ...], columns: Sequence[Any], rows: int) -> Entities:
    """The entities of so many queried rows; columns: for each join key its values, as numpy or pandas has them.

    A view without join keys has one entity. Raises HistoryError for values that cannot be keys of the declared type.
    """
    if not keys:
        return Entities(keys, np.zeros(rows, np.int64), 1, (), ())
    words, numbers, pairs = [], np.zeros(0, np.int64), []
    for key, column in zip(keys, columns, strict=True):
        coded = _as_key(key, _as_arrow(key, column), "the entity dataframe").dictionary_encode()
        words.append(coded.dictionary)
        own = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        if len(words) == 1:
            numbers = own
            continue
        paired = _paired(numbers, own, len(coded.dictionary))
        known = np.unique(paired[paired >= 0])
        pairs.append(known)
        numbers = _positions(known, paired)
    count = len(pairs[-1]) if pairs else len(words[0])
    return Entities(keys, numbers, count, tuple(words), tuple(pairs))


def _paired(one: Numbers, other: Numbers, size: int) -> Numbers:
    return np.where((one >= 0) & (other >= 0), one * size + other, -1)


def _positions(known: Numbers, paired: Numbers) -> Numbers:
    """Where each is in `known`, which goes up; −1 for what is not in it."""
    if not len(known):
        return np.full(len(paired), -1, np.int64)
    at = np.minimum(np.searchsorted(known, paired), len(known) - 1)
    return np.where(known[at] == paired, at, -1)


def _as_arrow(key: JoinKey, column: Any) -> pa.Array:
    try:
        found = pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise HistoryError(
            f"the entity dataframe's column {key.name!r} holds values of several types ({told(error)}): "
            f"join key {key.name!r} is {key.kind}, give it one"
        ) from error
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _as_key(key: JoinKey, column: pa.Array, where: str) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if key.kind not in _KINDS:
        raise HistoryError(f"join key {key.name!r} is {key.kind}: history is joined by {', '.join(_KINDS)}")
    wanted, tests, called = _KINDS[key.kind]
    if pa.types.is_null(column.type):
        return column.cast(wanted)
    if not any(test(column.type) for test in tests):
        raise HistoryError(f"{where} has {column.type} in {key.name!r}, which is {key.kind}: it must hold {called}")
    try:
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise HistoryError(f"{where} has no {key.kind} in {key.name!r}: {told(error)}") from error
