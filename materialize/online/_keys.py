"""Keys: `<project>:<view>:{<Feast v3 entity key bytes>}`.

The braces make the entity key the Redis Cluster hash tag, so that one entity's rows share a slot. The bytes within are
those of Feast's `serialize_entity_key`, version 3, written here without building a protobuf message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.protos.feast.types.Value_pb2 import ValueType

from materialize.definitions import JoinKey

Column = np.ndarray[Any, Any]

_U32 = struct.Struct("<I")
_STRING = _U32.pack(ValueType.STRING)
_PACKERS: dict[str, Callable[[object], bytes]] = {
    "STRING": lambda value: str(value).encode(),
    "BYTES": lambda value: bytes(value),  # type: ignore[call-overload]
    "INT32": lambda value: struct.pack("<i", int(value)),  # type: ignore[call-overload]
    "INT64": lambda value: struct.pack("<q", int(value)),  # type: ignore[call-overload]
    "UNIX_TIMESTAMP": lambda value: struct.pack("<q", int(value)),  # type: ignore[call-overload]
}

_NO_ENTITY = EntityKeyProto(join_keys=[DUMMY_ENTITY_ID], entity_values=[ValueProto(string_val=DUMMY_ENTITY_VAL)])


class KeyEncoder:
    """Makes the Redis keys of one view's entities."""

    def __init__(self, project: str, view_name: str, join_keys: Sequence[JoinKey]) -> None:
        """`join_keys` are sorted by name; a view without any has the one row that Feast's placeholder entity keys.

        Raises ValueError for a join key of a type that Feast cannot serialise."""
        odd = [key for key in join_keys if key.kind not in _PACKERS]
        if odd:
            raise ValueError(f"view {view_name!r}: a join key cannot be of type {odd[0].kind}")
        names = b"".join(
            _U32.pack(ValueType.STRING) + _U32.pack(len(key.name.encode())) + key.name.encode() for key in join_keys
        )
        self.prefix = view_prefix(project, view_name) + b"{"
        self._names = _U32.pack(len(join_keys)) + names if join_keys else _serialised(_NO_ENTITY)
        self._packers = [(_U32.pack(ValueType.Enum.Value(key.kind)), _PACKERS[key.kind]) for key in join_keys]

    def key(self, values: Sequence[object]) -> bytes:
        """The key of one entity; `values` in the order of the join keys."""
        return self.prefix + self.entity(values)

    def entity(self, values: Sequence[object]) -> bytes:
        """What follows `prefix` in an entity's key: the same in all views whose encoders have the same `identity`."""
        parts = [self._names]
        for (kind, pack), value in zip(self._packers, values, strict=True):
            packed = pack(value)
            parts += (kind, _U32.pack(len(packed)), packed)
        parts.append(b"}")
        return b"".join(parts)

    def entities(self, identities: Iterable[Sequence[object]]) -> list[bytes]:
        """`entity` of each."""
        if len(self._packers) != 1:
            return [self.entity(values) for values in identities]
        ((kind, pack),) = self._packers
        before, size = self._names + kind, _U32.pack
        packed = [pack(value) for (value,) in identities]
        return [b"%b%b%b}" % (before, size(len(part)), part) for part in packed]

    def entities_of_columns(self, columns: Sequence[Column]) -> pa.Array:
        """`entity` of each of n entities, a binary array; columns: for each join key its n values, without null.

        Text is put together where Arrow has it, other values one by one.
        """
        texts = [_text(column) for column in columns]
        if not texts or any(text is None for text in texts) or any(kind != _STRING for kind, _ in self._packers):
            return pa.array(self.entities(zip(*columns, strict=True)), pa.binary())
        parts: list[Any] = [pa.scalar(self._names, pa.binary())]
        for text in texts:
            parts += [pa.scalar(_STRING, pa.binary()), _lengths(text), text]
        return pc.binary_join_element_wise(*parts, pa.scalar(b"}", pa.binary()), pa.scalar(b"", pa.binary()))

    def keys(self, identities: Iterable[Sequence[object]]) -> list[bytes]:
        """`key` of each."""
        return [self.prefix + entity for entity in self.entities(identities)]

    @property
    def identity(self) -> tuple[object, ...]:
        """What the entity part of a key depends on beside the values."""
        return (self._names, *(kind for kind, _ in self._packers))

    def key_of(self, entity: EntityKeyProto) -> bytes:
        """The key of an entity that Feast gives: of a view without entities a placeholder or, on a push, nothing."""
        return self.prefix + _serialised(entity if entity.join_keys else _NO_ENTITY) + b"}"


def view_prefix(project: str, view_name: str) -> bytes:
    """What all keys of a view begin with."""
    return f"{project}:{view_name}:".encode()


def _text(column: Column) -> pa.Array | None:
    """The values in UTF-8, a binary array, if all of them are strings."""
    if column.dtype != object:
        return None
    try:
        return pa.array(column, pa.string(), from_pandas=False).cast(pa.binary())
    except (pa.ArrowException, TypeError):
        return None


def _lengths(text: pa.Array) -> pa.Array:
    """The length of each value as four bytes."""
    lengths = pc.binary_length(text).to_numpy().astype("<u4")
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(4), len(text), [None, pa.py_buffer(lengths)])
    return fixed.cast(pa.binary())


def _serialised(entity: EntityKeyProto) -> bytes:
    return bytes(serialize_entity_key(entity, entity_key_serialization_version=3))
