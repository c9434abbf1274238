"""Lengths of time, names and lines of definitions, as people write them in a feature repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from actor_risk.changes.described import FeatureDefinition, WindowDefinition

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_UNITS_MS = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_ENDS_IN_WINDOW = re.compile(r"_(\d+)(ms|s|m|min|h|d|w)$")
_NAMED_UNITS_MS = {**_UNITS_MS, "min": MINUTE_MS, "w": 7 * DAY_MS}
_VERSION = re.compile(r"_v(\d+)$")

TYPES = {
    "DOUBLE": "Float64",
    "FLOAT": "Float32",
    "INT64": "Int64",
    "INT32": "Int32",
    "STRING": "String",
    "BOOL": "Bool",
    "BYTES": "Bytes",
    "UNIX_TIMESTAMP": "UnixTimestamp",
}
"""Feast value type → the name that a `Field` gives it."""


def length(span_ms: int) -> str:
    """A length of time as names of features end in it: `5m`, `24h`, `7d`. Whole days are days from two on."""
    for unit, least_ms in (("d", 2 * DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS)):
        if span_ms >= least_ms and span_ms % _UNITS_MS[unit] == 0:
            return f"{span_ms // _UNITS_MS[unit]}{unit}"
    return f"{span_ms}ms"


def timedelta_of(span_ms: int) -> str:
    """A length of time as Python: `timedelta(hours=24)`."""
    words = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds"}
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", length(span_ms)).groups()  # type: ignore[union-attr]
    return f"timedelta({words[unit]}={number})"


def window_in(name: str) -> int | None:
    """The length, in ms, that a name ends in: 86,400,000 for `ip_clicks_24h`. None where it ends in none."""
    found = _ENDS_IN_WINDOW.search(name)
    return int(found[1]) * _NAMED_UNITS_MS[found[2]] if found else None


def with_window(name: str, span_ms: int) -> str:
    """The name with that window at its end, instead of the one that it ends in."""
    return f"{_ENDS_IN_WINDOW.sub('', name)}_{length(span_ms)}"


def next_version(name: str) -> str:
    """A name for what stands beside the old: `ip_ad_stats_v2`, `ip_ad_stats_v3`. A window stays at the end."""
    window = _ENDS_IN_WINDOW.search(name)
    stem = name[: window.start()] if window else name
    found = _VERSION.search(stem)
    stem = f"{stem[: found.start()]}_v{int(found[1]) + 1}" if found else f"{stem}_v2"
    return stem + (window[0] if window else "")


def beside(name: str, old: WindowDefinition | None, new: WindowDefinition | None) -> str:
    """A name for a feature whose definition changed, so that the old one can stay."""
    if new is None:
        return next_version(name)
    renamed = with_window(name, new.length_ms) if window_in(name) is not None else name
    only_length = old is not None and (old.column, old.function) == (new.column, new.function)
    return renamed if only_length and renamed != name else next_version(renamed)


def lines_of(feature: FeatureDefinition, name: str) -> str:
    """The feature as it is written in a view, under `name`."""
    about = feature.description or "…"
    field = f'Field(name="{name}", dtype={TYPES.get(feature.kind, feature.kind)}, description="{about}")'
    window = feature.window
    if window is None:
        return field
    hop = f", slide_interval={timedelta_of(window.declared_hop_ms)}" if window.declared_hop_ms else ""
    aggregation = (
        f'Aggregation(column="{window.column}", function="{window.function}", '
        f'time_window={timedelta_of(window.length_ms)}{hop}, name="{name}")'
    )
    return f"{aggregation}\n{field}"


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names in a row, in the form of code; those beyond `most` are counted."""
    every = list(dict.fromkeys(names))
    shown = ", ".join(f"`{name}`" for name in every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"


def spoken(names: Sequence[str], most: int = 4) -> str:
    """Readers in a row: `service a, model b@1 and 2 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def size(count: float) -> str:
    """Bytes in a unit that fits."""
    for unit, one in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= one:
            return f"{count / one:.3g} {unit}"
    return f"{count:.0f} bytes"
