"""Values as of a time, from history: the Feast OfflineStore plug-in and what it is made of."""

from materialize.offline._errors import HistoryError
from materialize.offline._history import read_history
from materialize.offline._keys import entity_codes
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
    "ViewColumns",
    "entity_codes",
    "event_history",
    "read_history",
    "values_as_declared",
    "values_of_view",
]
