"""Times of tests: absolute, or relative to the case's `now`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

DEFAULT_NOW = "2026-01-01 12:00:00"
"""What relative times are relative to, unless a case says."""

HOW = "write it as 2026-01-01 12:00:00 (UTC), or relative to `now` as -5m, +1ms, -1d2h, 0"

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART = re.compile(r"([+-]?)(\d+)(ms|[dhms])")
_SPAN = re.compile(r"[+-](\d+(ms|[dhms])[+-]?)*\d+(ms|[dhms])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_ms(text: str, now_ms: int) -> int:
    """The time that a text names, milliseconds UTC. Raises ValueError, which says how to write one."""
    text = text.strip()
    if text in ("0", "now"):
        return now_ms
    if _SPAN.fullmatch(text):
        return now_ms + _span_ms(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: {HOW}") from None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return (when - _EPOCH) // timedelta(milliseconds=1)


def moment(time_ms: int) -> str:
    """A time as tests write it."""
    when = _EPOCH + timedelta(milliseconds=time_ms)
    text = f"{when:%Y-%m-%d %H:%M:%S}"
    return f"{text}.{time_ms % 1000:03d}" if time_ms % 1000 else text


def span(ms: int) -> str:
    """A distance from now, as tests write it."""
    if not ms:
        return "0"
    left, parts = abs(ms), []
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return ("+" if ms > 0 else "-") + "".join(parts)


def _span_ms(text: str) -> int:
    """A sign holds until the next one: -1h30m is an hour and a half ago."""
    total, sign = 0, 1
    for given, count, unit in _PART.findall(text):
        sign = {"+": 1, "-": -1}.get(given, sign)
        total += sign * int(count) * _UNITS[unit]
    return total
