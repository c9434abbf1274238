"""A length of time, as people write it."""

from __future__ import annotations

import re

from materialize.backfill._errors import SpanError

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def step_ms(text: str) -> int:
    """Milliseconds of `30m`, `6h`, `1d`. Raises SpanError."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None or not int(found.group(1)):
        raise SpanError(f"{text!r} is no step: write a whole number and s, m, h or d, such as 6h or 1d")
    return int(found.group(1)) * _UNITS_MS[found.group(2)]
