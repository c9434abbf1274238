"""What the words of a report mean, and its numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

REASONS = {
    "other_definition": "made with another definition of the feature service than the registry has now",
    "unknown_service": "made with a feature service that the registry does not have",
    "rows_refused": "degraded: a stored row could not be read, and its features were served as NOT_FOUND",
    "event_not_merged": "degraded: a view could not use the scored event",
    "windows_inexact": "degraded: read as of a time that the rows no longer hold in full",
    "on_demand_failed": "degraded: an on-demand function failed while serving",
    "beyond_history": "the decision is later than the history that the feature rests on",
    "on_demand_failed_offline": "an on-demand function failed while computing again",
    "kind_without_comparison": "values of this type are not compared",
}

OUTCOMES = {
    "mismatched": "two values that differ",
    "only_online": "served, but history has no value",
    "only_offline": "history has a value, but none was served",
    "late": "equal once what the log took after the decision, or within the lag before it, is left out",
    "equal": "equal",
}


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
