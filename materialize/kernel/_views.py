"""A view's aggregations, laid out: which columns its events need, and which slots its tiles have."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from materialize.kernel._aggregations import COUNT_DISTINCT, Aggregation, aggregation
from materialize.kernel._blocks import EventBlock, hash_values
from materialize.kernel._errors import KernelError
from materialize.kernel._partials import DISTINCT_KEEP, Floats, Hashes, Partial
from materialize.kernel._windows import Window
from materialize.personal import told

KERNEL_VERSION = 1
"""Part of every fingerprint: goes up when the meaning of a stored state changes."""

_NONE: Mapping[str, Hashes] = MappingProxyType({})


@dataclass(frozen=True)
class AggregationSpec:
    """One windowed feature: `function` over `column` in `window`."""

    feature: str
    column: str
    function: str
    window: Window


@dataclass(frozen=True)
class Slot:
    """Where one partial of the value column at `position` stands in a tile's state: from `first` to `stop`."""

    position: int
    partial: Partial
    first: int

    @property
    def stop(self) -> int:
        return self.first + len(self.partial.identity)


@dataclass(frozen=True)
class Output:
    """One feature of a window: its place among the view's aggregations, and where its state is.

    `state` are columns of the tile state; for a distinct count, `distinct` is the place of its set instead.
    """

    place: int
    function: Aggregation
    state: tuple[int, ...]
    distinct: int | None


@dataclass(frozen=True)
class HopLayout:
    """What the tiles of one hop keep, and which features are read from them.

    `slots` make up the state; `distinct` are the positions of the distinct columns, one set each; `outputs` go by
    window.
    """

    hop_ms: int
    reach_ms: int
    slots: tuple[Slot, ...]
    distinct: tuple[int, ...]
    outputs: tuple[tuple[Window, tuple[Output, ...]], ...]

    @cached_property
    def identity(self) -> Floats:
        """The state of no events, float64[width]."""
        return np.array([value for slot in self.slots for value in slot.partial.identity], dtype=np.float64)

    @property
    def width(self) -> int:
        return self.slots[-1].stop if self.slots else 0


@dataclass(frozen=True)
class ViewSpec:
    """All that the kernel needs to know of a stream view. `meaning` stands for its transformation."""

    name: str
    aggregations: tuple[AggregationSpec, ...]
    meaning: str = ""

    def __post_init__(self) -> None:
        if not self.aggregations:
            raise KernelError(f"view {self.name!r} has no aggregation")
        names = [spec.feature for spec in self.aggregations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise KernelError(f"view {self.name!r} defines {', '.join(twice)} more than once")
        for spec in self.aggregations:
            aggregation(spec.function)

    def __hash__(self) -> int:
        return self.fingerprint

    @cached_property
    def value_columns(self) -> tuple[str, ...]:
        """The columns whose numbers are folded, in the order of EventBlock.values."""
        return tuple(dict.fromkeys(spec.column for spec in self.aggregations if spec.function != COUNT_DISTINCT))

    @cached_property
    def distinct_columns(self) -> tuple[str, ...]:
        """The columns whose values are counted once each, in the order of EventBlock.hashes."""
        return tuple(dict.fromkeys(spec.column for spec in self.aggregations if spec.function == COUNT_DISTINCT))

    @cached_property
    def hops(self) -> tuple[HopLayout, ...]:
        """One layout for each hop, by growing hop; windows of one hop share its tiles."""
        hops = sorted({spec.window.hop_ms for spec in self.aggregations})
        return tuple(
            self._layout([(p, s) for p, s in enumerate(self.aggregations) if s.window.hop_ms == hop]) for hop in hops
        )

    @cached_property
    def distinct_windows(self) -> tuple[Window, ...]:
        """Every window that some feature has, once."""
        return tuple(dict.fromkeys(spec.window for spec in self.aggregations))

    @cached_property
    def reach_ms(self) -> int:
        """How far back any window can reach."""
        return max(spec.window.reach_ms for spec in self.aggregations)

    @cached_property
    def batch_step_ms(self) -> int:
        """The batch side ends at a multiple of this: every tile of every hop then belongs to one side."""
        return math.lcm(*(layout.hop_ms for layout in self.hops))

    def tail_ms(self, as_of_ms: int) -> int:
        """The earliest event time that any of the windows covers as of `as_of_ms`."""
        return min(spec.window.tail_ms(as_of_ms) for spec in self.aggregations)

    @cached_property
    def fingerprint(self) -> int:
        """64 bits that change with everything that changes the meaning of a stored row."""
        parts = [f"kernel {KERNEL_VERSION}, distinct {DISTINCT_KEEP}", self.name, self.meaning]
        parts += [f"{s.feature}={s.function}({s.column})/{s.window}" for s in self.aggregations]
        return int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:8], "little")

    def block(
        self, times: Any, ids: Any, columns: Mapping[str, np.ndarray[Any, Any]], hashed: Mapping[str, Hashes] = _NONE
    ) -> EventBlock:
        """The view's block from event times (ms), event identities, or their hashes uint64[n], and the columns that it
        aggregates; `hashed` has the hashes, uint64[n], of what is hashed already.

        Raises KernelError for a column that is missing or, unless it is only counted, not numeric.
        """
        missing = [name for name in self.value_columns if name not in columns]
        missing += [name for name in self.distinct_columns if name not in columns and name not in hashed]
        if missing:
            raise KernelError(f"view {self.name!r} aggregates {', '.join(missing)}, which its events do not have")
        times = np.asarray(times, dtype=np.int64)
        values = [self.numbers(name, columns[name]) for name in self.value_columns]
        hashes = [hashed[name] if name in hashed else hash_values(columns[name]) for name in self.distinct_columns]
        return EventBlock(
            times,
            ids if isinstance(ids, np.ndarray) and ids.dtype == np.uint64 else hash_values(ids),
            np.stack(values, axis=1) if values else np.empty((len(times), 0)),
            np.stack(hashes, axis=1) if hashes else np.empty((len(times), 0), np.uint64),
        )

    def numbers(self, name: str, column: np.ndarray[Any, Any]) -> Floats:
        """What is folded of a value column, float64[n], NaN for null. Raises KernelError when it is not numeric."""
        if column.dtype.kind in "fiub":
            return column.astype(np.float64)
        if {s.function for s in self.aggregations if s.column == name} <= {"count", COUNT_DISTINCT}:
            return np.array([np.nan if value is None else 1.0 for value in column], dtype=np.float64)
        try:
            return np.array([np.nan if value is None else value for value in column], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise KernelError(f"view {self.name!r}: column {name!r} is not numeric: {told(error)}") from error

    def _layout(self, placed: list[tuple[int, AggregationSpec]]) -> HopLayout:
        slots: dict[tuple[int, str], Slot] = {}
        distinct: dict[int, int] = {}
        width = 0
        for _, spec in placed:
            if spec.function == COUNT_DISTINCT:
                distinct.setdefault(self.distinct_columns.index(spec.column), len(distinct))
            for partial in aggregation(spec.function).partials:
                key = (self.value_columns.index(spec.column), partial.name)
                if key not in slots:
                    slots[key] = Slot(key[0], partial, width)
                    width = slots[key].stop
        windows = sorted({spec.window for _, spec in placed}, key=lambda window: window.length_ms)
        return HopLayout(
            windows[0].hop_ms,
            max(window.reach_ms for window in windows),
            tuple(slots.values()),
            tuple(distinct),
            tuple(
                (window, tuple(self._output(p, s, slots, distinct) for p, s in placed if s.window == window))
                for window in windows
            ),
        )

    def _output(
        self, place: int, spec: AggregationSpec, slots: Mapping[tuple[int, str], Slot], distinct: Mapping[int, int]
    ) -> Output:
        function = aggregation(spec.function)
        if spec.function == COUNT_DISTINCT:
            return Output(place, function, (), distinct[self.distinct_columns.index(spec.column)])
        position = self.value_columns.index(spec.column)
        used = [slots[position, partial.name] for partial in function.partials]
        return Output(place, function, tuple(i for slot in used for i in range(slot.first, slot.stop)), None)
