"""Feast's own tiling, called as its Ray engine calls it: cumulative tiles of a window, then their differences."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from feast.aggregation import Aggregation
from feast.aggregation.tiling import (
    apply_sawtooth_window_tiling,
    convert_cumulative_to_windowed,
    deduplicate_keep_latest,
)

from materialize.kernel import ViewSpec

TIME = "event_timestamp"

Frame = Any
"""A pandas frame; Feast is untyped."""


@dataclass(frozen=True)
class FeastTiling:
    """The aggregations of one of our views, in Feast's terms; its windows are of one length."""

    key: str
    window: timedelta
    hop: timedelta
    aggregations: tuple[Aggregation, ...]

    @classmethod
    def of(cls, spec: ViewSpec, key: str) -> FeastTiling:
        """The same features of the same window, under the same names."""
        window = spec.aggregations[0].window
        length, hop = timedelta(milliseconds=window.length_ms), timedelta(milliseconds=window.hop_ms)
        aggregations = tuple(
            Aggregation(column=a.column, function=a.function, time_window=length, slide_interval=hop, name=a.feature)
            for a in spec.aggregations
        )
        return cls(key, length, hop, aggregations)

    def tiles(self, events: Frame) -> Frame:
        """Cumulative tiles of every entity and hop."""
        return apply_sawtooth_window_tiling(
            events.copy(), list(self.aggregations), [self.key], TIME, self.window, self.hop
        )

    def newest(self, tiles: Frame) -> Frame:
        """The window's values of every entity at the end of the last hop, by entity: what Feast would store."""
        windowed = convert_cumulative_to_windowed(tiles, [self.key], TIME, self.window, list(self.aggregations))
        return deduplicate_keep_latest(windowed, [self.key], TIME).set_index(self.key)
