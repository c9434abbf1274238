"""What is known to have been true of a sample's events: the tables in `labels/`, joined to events.

A table that has the events' identity is joined by it; one that has not, by the time and by every other column that it
shares with the events. Of several tables, an event's topic takes the one that knows most of its events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from actor_risk.changes.asked_events import AskedEvents
from materialize.definitions import EVENT_ID

LABELS, LABEL = "labels", "label"
LABELS_MAX = 5_000_000
"""A table with more rows is left alone."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Labels:
    """values: for each topic float64[events], NaN where nothing is known. names: of the tables that were of use."""

    values: list[Floats]
    names: tuple[str, ...]


def labels_of(sample: Path, topics: Sequence[AskedEvents]) -> Labels:
    """The labels of the topics' events; nothing where the sample has none, or none that fits."""
    tables = {path.stem: path for path in sorted((sample / LABELS).glob("*.parquet")) if _is_usable(path)}
    values, names = [], []
    for topic in topics:
        best, of = np.full(len(topic), np.nan), ""
        for name, path in tables.items():
            found = _joined(topic, path)
            if np.isfinite(found).sum() > np.isfinite(best).sum():
                best, of = found, name
        values.append(best)
        names += [of] if of else []
    return Labels(values, tuple(dict.fromkeys(names)))


def _is_usable(path: Path) -> bool:
    file = pq.read_metadata(path)
    return LABEL in file.schema.to_arrow_schema().names and file.num_rows <= LABELS_MAX


def _joined(topic: AskedEvents, path: Path) -> Floats:
    nothing = np.full(len(topic), np.nan)
    names = pq.read_schema(path).names
    time = topic.source.timestamp_field
    shared = [name for name in names if name in topic.table.column_names and name != LABEL]
    by = [EVENT_ID] if EVENT_ID in shared else shared
    if not by or (EVENT_ID not in by and (time not in by or len(by) < 2)):
        return nothing
    known = _plain(pq.read_table(path, columns=[*by, LABEL])).drop_duplicates(by)
    events = _plain(topic.table.select(by))
    if any(known[name].dtype != events[name].dtype for name in by):
        return nothing
    found = events.merge(known, on=by, how="left")[LABEL]
    return pd.to_numeric(found, errors="coerce").to_numpy(np.float64)


def _plain(table: pa.Table) -> pd.DataFrame:
    """Times in whole milliseconds, so that tables written in other units fit together."""
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            whole = table.column(place).cast(pa.timestamp("ms", field.type.tz), safe=False).cast(pa.int64())
            table = table.set_column(place, field.name, whole)
    frame: pd.DataFrame = table.to_pandas()
    return frame
