"""By when an answer must be made, and how much of a request's time is kept for what comes after the score."""

from __future__ import annotations

from serving.clock import NS_PER_S

RESERVE_S, RESERVE_SHARE = 0.002, 0.25
"""So much of a request's time, or this share of it if that is less, is kept for what comes after the score."""


def until_ns_after(since_ns: int, seconds: float) -> int:
    """By when the answer to a request that came at `since_ns` and may take so long must be made, monotonic."""
    return since_ns + int((seconds - min(RESERVE_S, RESERVE_SHARE * seconds)) * NS_PER_S)


def end_ns_of(since_ns: int, until_ns: int) -> int:
    """When the caller's own time is over, if that gave `until_ns`."""
    share = RESERVE_SHARE / (1 - RESERVE_SHARE)
    return until_ns + int(min(RESERVE_S * NS_PER_S, share * (until_ns - since_ns)))
