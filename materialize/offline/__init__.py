"""Values as of a time, from history: the Feast OfflineStore plug-in and what it is made of."""

from materialize.offline._columns import ColumnNotReadError, EventColumns
from materialize.offline._declared import ARROW_TYPES, ViewColumns, values_as_declared
from materialize.offline._errors import HistoryError
from materialize.offline._gathering import columns_to_read
from materialize.offline._history import History, history_end_ms, open_history, read_history
from materialize.offline._keys import entity_codes
from materialize.offline._knowledge import Knowledge, OwnEvents
from materialize.offline._point_in_time import PointInTime, values_of_view
from materialize.offline._queries import Limits, ViewQuery

__all__ = [
    "ARROW_TYPES",
    "ColumnNotReadError",
    "EventColumns",
    "History",
    "HistoryError",
    "Knowledge",
    "Limits",
    "OwnEvents",
    "PointInTime",
    "ViewColumns",
    "ViewQuery",
    "columns_to_read",
    "entity_codes",
    "history_end_ms",
    "open_history",
    "read_history",
    "values_as_declared",
    "values_of_view",
]
