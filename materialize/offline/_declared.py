"""Values in the types that their features declare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from materialize.definitions import FeatureField, View
from materialize.offline._errors import HistoryError
from materialize.personal import told

ARROW_TYPES = {
    "DOUBLE": pa.float64(),
    "FLOAT": pa.float32(),
    "INT64": pa.int64(),
    "INT32": pa.int32(),
    "BOOL": pa.bool_(),
    "STRING": pa.string(),
}
"""The Arrow type of a Feast value type; columns of other types stay as they are stored."""


@dataclass(frozen=True)
class ViewColumns:
    """One Arrow column of length q for each requested feature, null where there is no value."""

    names: tuple[str, ...]
    columns: tuple[pa.ChunkedArray, ...]


def values_as_declared(field: FeatureField, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A stored column in the type of its field, NaN as null. Raises HistoryError when it cannot be that."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(ARROW_TYPES.get(field.kind, column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise HistoryError(
            f"feature {field.name!r} is {field.kind}, but its history holds {column.type}: {told(error)}; "
            "change the field's type, or write the column in it"
        ) from error


def no_values(view: View, features: Sequence[str], rows: int) -> ViewColumns:
    """Null for each feature of each row."""
    kinds = [ARROW_TYPES.get(field_of(view, name).kind, pa.null()) for name in features]
    return ViewColumns(tuple(features), tuple(pa.chunked_array([pa.nulls(rows, kind)]) for kind in kinds))


def field_of(view: View, name: str) -> FeatureField:
    """The field of that name."""
    return next(field for field in view.fields if field.name == name)
