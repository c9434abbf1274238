"""Numbers, times and texts as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\s]+")
"""Line ends and other blanks, control signs, and signs that turn the direction of what follows."""


def number(value: Any) -> str:
    """A value, short; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{int(value):,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def exact(value: Any) -> str:
    """A value in full, so that two that differ look different; a dash for none."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return "–" if value is None else repr(value) if isinstance(value, float) else str(value)


def share(value: float) -> str:
    """A share as a percentage; a small one is not rounded to none, nor a large one to all."""
    text = f"{100 * value:.2f}".removesuffix(".00")
    text = "< 0.01" if text == "0" and value else "> 99.99" if text == "100" and value < 1 else text
    return f"{text}\N{NO-BREAK SPACE}%"


def counted(count: int, noun: str) -> str:
    """So many of something."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def moment(time_ms: int | None) -> str:
    """A time in UTC, without the digits that are zero at its end."""
    if time_ms is None:
        return "–"
    text = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return text.removesuffix(".000").removesuffix(":00")


def duration(age_ms: int | None) -> str:
    """A length of time in its largest fitting unit."""
    if age_ms is None:
        return "–"
    for unit, length_ms in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if age_ms >= length_ms:
            return f"{age_ms / length_ms:.3g} {unit}"
    return f"{age_ms} ms"


def one_line(text: str, length_max: int = 300) -> str:
    """A text from outside on one line, without signs that steer a terminal or a page, and not longer than that."""
    plain = _UNSEEN.sub(" ", text[: 4 * length_max]).strip()
    return plain if len(plain) <= length_max else plain[: length_max - 1] + "…"


def lines(text: str, length_max: int = 4_000) -> str:
    """A text of several lines, its layout kept, otherwise as `one_line`."""
    kept = (_UNSEEN.sub(_blanks, line).rstrip() for line in text[:length_max].splitlines())
    return "\n".join(kept).strip("\n") + ("\n…" if len(text) > length_max else "")


def _blanks(found: re.Match[str]) -> str:
    return "".join("    " if sign == "\t" else " " if sign.isspace() else "" for sign in found[0])
