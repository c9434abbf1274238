"""Real ad clicks, replayed through the same path as simulated ones.

The file is a sample of ad clicks with the question whether each led to an install. Its label says *installed*, not
*fraud*: a model of it is a conversion model. `attributed_time` gives the label away and is never passed on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actor_risk.simulate._errors import InvalidClicksFileError
from actor_risk.simulate._schemas import (
    ACCOUNT_EVENTS_SCHEMA,
    AD_EVENTS_SCHEMA,
    ADVERTISER_LABELS_SCHEMA,
    ADVERTISER_PROFILES_SCHEMA,
    CONVERSION_LABELS_SCHEMA,
    CREATOR_PROFILES_SCHEMA,
    DEVICE_PROFILES_SCHEMA,
    IP_PROFILES_SCHEMA,
    TIME,
)
from actor_risk.simulate._simulation import Simulation

_COLUMNS = ("ip", "app", "device", "os", "channel", "click_time", "is_attributed")
_EXPECTED = f"expected is a Parquet file of ad clicks with the columns {', '.join(_COLUMNS)}"


def load_clicks(path: Path, shift_ms: int = 0) -> Simulation:
    """The clicks of the file at `path` as `ad_events`, each `shift_ms` later than it was, sorted by event time.

    app → advertiser_id, channel → creator_id, ip → ip, the fingerprint `ip:device:os` → device_id. Event ids are
    `click-<row of the file>`. `created` is the event time, since the file knows no other; there are no amounts and
    no impressions. `ad_click_labels` holds `is_attributed`: **1 = the click led to an install**, a conversion label.
    The other tables are empty, with their schema.

    Raises InvalidClicksFileError when the file is missing, no Parquet file, has other columns or null keys.
    """
    table = _read(path)
    time = _shifted(table.column("click_time"), shift_ms)
    events = pa.Table.from_pydict(_event_columns(table, time), schema=AD_EVENTS_SCHEMA)
    context = events.select(CONVERSION_LABELS_SCHEMA.names[:-1])
    labels = context.append_column("label", table.column("is_attributed").cast(pa.int64()))
    return Simulation(
        ad_events=events.sort_by("event_time"),
        account_events=ACCOUNT_EVENTS_SCHEMA.empty_table(),
        ad_click_labels=labels.cast(CONVERSION_LABELS_SCHEMA).sort_by("event_time"),
        advertiser_labels=ADVERTISER_LABELS_SCHEMA.empty_table(),
        advertiser_profiles=ADVERTISER_PROFILES_SCHEMA.empty_table(),
        creator_profiles=CREATOR_PROFILES_SCHEMA.empty_table(),
        ip_profiles=IP_PROFILES_SCHEMA.empty_table(),
        device_profiles=DEVICE_PROFILES_SCHEMA.empty_table(),
    )


def shift_to(path: Path, last_click_ms: int) -> int:
    """The `shift_ms` with which the last click of the file falls on `last_click_ms`.

    Raises InvalidClicksFileError as `load_clicks` does.
    """
    latest = pc.max(_milliseconds(_read(path).column("click_time"))).as_py()
    return last_click_ms - int(latest)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InvalidClicksFileError(f"no file at {path}: {_EXPECTED}; give the path of your copy")
    try:
        present = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise InvalidClicksFileError(f"{path} is no Parquet file ({error}): {_EXPECTED}") from error
    missing = [name for name in _COLUMNS if name not in present]
    if missing:
        raise InvalidClicksFileError(f"{path} lacks the columns {', '.join(missing)}: {_EXPECTED}")
    table = pq.read_table(path, columns=list(_COLUMNS))
    incomplete = [name for name in _COLUMNS if table.column(name).null_count]
    if incomplete or table.num_rows == 0:
        raise InvalidClicksFileError(
            f"{path} has no rows, or nulls in {', '.join(incomplete) or 'none'}: {_EXPECTED}, all filled in"
        )
    return table


def _event_columns(table: pa.Table, time: pa.ChunkedArray) -> dict[str, pa.ChunkedArray | pa.Array]:
    n = table.num_rows
    text = {name: table.column(name).cast(pa.string()) for name in ("ip", "app", "device", "os", "channel")}
    rows = pa.array(np.arange(n)).cast(pa.string())
    return {
        "event_id": _prefixed("click", rows),
        "event_time": time,
        "created": time,
        "event_type": pa.array(np.full(n, "click")),
        "advertiser_id": _prefixed("app", text["app"]),
        "creator_id": _prefixed("channel", text["channel"]),
        "ip": _prefixed("ip", text["ip"]),
        "device_id": pc.binary_join_element_wise(text["ip"], text["device"], text["os"], ":"),
        "os": text["os"],
        "country": pa.nulls(n, pa.string()),
        "amount_usd": pa.nulls(n, pa.float64()),
        "ms_since_impression": pa.nulls(n, pa.int64()),
    }


def _prefixed(prefix: str, numbers: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    return pc.binary_join_element_wise(pa.scalar(prefix), numbers, "-")


def _milliseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())


def _shifted(column: pa.ChunkedArray, shift_ms: int) -> pa.ChunkedArray:
    return pc.add(_milliseconds(column), shift_ms).cast(TIME)
