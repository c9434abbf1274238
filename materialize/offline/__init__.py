"""Values as of a time, from history: the Feast OfflineStore plug-in and what it is made of."""

from materialize.offline._errors import HistoryError
from materialize.offline._history import history_end_ms, read_history
from materialize.offline._keys import entity_codes
from materialize.offline._knowledge import Knowledge, OwnEvents
from materialize.offline._point_in_time import (
    ARROW_TYPES,
    EventHistory,
    ViewColumns,
    event_history,
    values_as_declared,
    values_of_view,
)

__all__ = [
    "ARROW_TYPES",
    "EventHistory",
    "HistoryError",
    "Knowledge",
    "OwnEvents",
    "ViewColumns",
    "entity_codes",
    "event_history",
    "history_end_ms",
    "read_history",
    "values_as_declared",
    "values_of_view",
]
