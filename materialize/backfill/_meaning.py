"""What a view's rows mean, as one hash: rows made under another one are no rows of this view."""

from __future__ import annotations

import hashlib
from types import CodeType
from typing import Any

from feast import FeatureView
from feast.data_source import DataSource

from materialize.definitions import View

VERSION = 1
"""Goes up when a backfill of the same definition gives other rows."""


def meaning_of(feature_view: FeatureView, view: View) -> str:
    """16 hexadecimal digits that change with everything that changes the rows of a backfill but the data.

    The view's fingerprint stands for its features and for the code of its transformation; where Feast has no text,
    its compiled code does. What the transformation calls outside itself is not seen.
    """
    parts = [f"backfill {VERSION}", view.name, f"{view.fingerprint:016x}", f"ttl {view.ttl_ms}"]
    parts += [f"key {key.name}:{key.kind}" for key in view.join_keys]
    parts += _source(feature_view.batch_source)
    transform: Any = getattr(feature_view, "udf", None)
    if transform is not None and not getattr(feature_view, "udf_string", ""):
        parts += _code(transform.__code__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _source(source: DataSource) -> list[str]:
    mapped = [f"{stored}>{called}" for stored, called in sorted(source.field_mapping.items())]
    return [
        f"path {getattr(source, 'path', '')}",
        f"time {source.timestamp_field}",
        f"created {source.created_timestamp_column}",
        *mapped,
    ]


def _code(code: CodeType) -> list[str]:
    """The code of a function and of the functions within it, without where it stood."""
    inner = [line for value in code.co_consts if isinstance(value, CodeType) for line in _code(value)]
    plain = [repr(value) for value in code.co_consts if not isinstance(value, CodeType)]
    return [code.co_code.hex(), *code.co_names, *plain, *inner]
