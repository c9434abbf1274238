"""AR407 and AR408: hops that do not divide their windows, distinct counts over many tiles."""

from __future__ import annotations

from collections.abc import Iterator

from actor_risk.changes.described import FeatureDefinition, RepoDefinition, ViewDefinition, WindowDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.versions import features_of
from actor_risk.changes.wording import DAY_MS, length, size, timedelta_of

SET_BYTES_MAX = 2_048
"""What the set of one tile and column can take: docs/decisions/0005."""

LONG_MS = 7 * DAY_MS

UNIQUE = frozenset({"event_id", "decision_id", "request_id", "trace_id", "click_id", "payment_id", "order_id", "uuid"})
"""Columns with another value in every event: their distinct count is the count of events."""

MANY = ("ip", "device", "device_id", "actor_id", "advertiser_id", "creator_id", "user_agent", "email", "phone", "url")
"""Endings of columns with more values than a set keeps."""

FEW = frozenset({"country", "os", "currency", "language", "event_type", "actor_type", "status", "os_version", "kind"})
"""Columns with so few values that sets stay small, however long the window."""

_HOPS_MS = (60_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 43_200_000, DAY_MS)


def find_hops(repo: RepoDefinition) -> Iterator[Finding]:
    """AR407: a declared hop that does not divide its window is not in force."""
    for view, feature in features_of(repo):
        window = feature.window
        if window is None or window.declared_hop_ms is None:
            continue
        if window.declared_hop_ms <= 0 or window.length_ms % window.declared_hop_ms:
            yield _hop(view, feature, window, window.declared_hop_ms)


def _hop(view: ViewDefinition, feature: FeatureDefinition, window: WindowDefinition, declared_ms: int) -> Finding:
    near = [hop for hop in _HOPS_MS if hop < window.length_ms and window.length_ms % hop == 0]
    better = min(near, key=lambda hop: abs(hop - declared_ms), default=window.hop_ms)
    return Finding(
        code="AR407",
        subject=f"{view.name}:{feature.name}",
        message=(
            f"a hop of {length(declared_ms)} does not divide its window of {length(window.length_ms)}: it is not in "
            f"force, {length(window.hop_ms)} is."
        ),
        instead=f"slide_interval={timedelta_of(better)}",
        place=view.place,
    )


def find_distinct_counts(repo: RepoDefinition) -> Iterator[Finding]:
    """AR408: a set for each tile, over so many tiles that rows of busy actors become large."""
    for view, feature in features_of(repo):
        window = feature.window
        if window is None or window.function != "count_distinct":
            continue
        column = window.column
        many = column in UNIQUE or column.endswith(MANY)
        if column in UNIQUE or (many and window.length_ms > DAY_MS) or _is_long(window):
            yield _distinct(view, feature, window)


def _is_long(window: WindowDefinition) -> bool:
    return window.length_ms >= LONG_MS and window.column not in FEW


def _bytes_max(length_ms: int, hop_ms: int) -> int:
    return (length_ms // hop_ms + 2) * SET_BYTES_MAX


def _distinct(view: ViewDefinition, feature: FeatureDefinition, window: WindowDefinition) -> Finding:
    most = _bytes_max(window.length_ms, window.hop_ms)
    if window.column in UNIQUE:
        instead = (
            f"Every event has a `{window.column}` of its own: write "
            f'Aggregation(column="{window.column}", function="count", time_window={timedelta_of(window.length_ms)}, '
            f'name="{feature.name}"), which takes 8 bytes for each tile.'
        )
    else:
        coarser = next((hop for hop in (21_600_000, DAY_MS) if hop > window.hop_ms and window.length_ms % hop == 0), 0)
        instead = (
            f"A window of 24h at most ({size(_bytes_max(DAY_MS, 3_600_000))}), or waive it with what busy actors reach"
        )
        if coarser:
            less = size(_bytes_max(window.length_ms, coarser))
            instead += f"; or fewer tiles: slide_interval={timedelta_of(coarser)} ({less} at most)"
        instead += "."
    return Finding(
        code="AR408",
        subject=f"{view.name}:{feature.name}",
        message=(
            f"it keeps a set of `{window.column}` for each of {window.length_ms // window.hop_ms + 2} tiles: up to "
            f"{size(most)} in the row of one busy actor, read by every request about it."
        ),
        instead=instead,
        place=view.place,
    )
