"""What is asked of history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feast.data_source import DataSource

from materialize.definitions import View

MIB = 1 << 20


@dataclass(frozen=True)
class ViewQuery:
    """Features of one view, for rows whose keys stand in columns of length q, one for each join key of the view.

    The columns are numpy's or pandas's.
    """

    view: View
    source: DataSource
    features: tuple[str, ...]
    keys: Sequence[Any]

    def of_rows(self, rows: Any) -> ViewQuery:
        """The same for some of the rows, by position."""
        return ViewQuery(self.view, self.source, self.features, [_taken(column, rows) for column in self.keys])


@dataclass(frozen=True)
class Limits:
    """What one part may hold in memory.

    rows: rows of the entity dataframe whose values are computed together, and then given out. events_bytes: what the
    events gathered at a time take; with sorting them it is about three times as much.
    """

    rows: int = 250_000
    events_bytes: int = 256 * MIB


DEFAULT_LIMITS = Limits()


def _taken(column: Any, rows: Any) -> Any:
    return column.iloc[rows] if hasattr(column, "iloc") else column[rows]
