"""Which columns of history are read for views."""

from __future__ import annotations

from collections.abc import Sequence

from materialize.definitions import EVENT_ID, StreamView
from materialize.offline._columns import names_in
from materialize.offline._history import History


def columns_to_read(history: History, views: Sequence[StreamView], created: str | None = None) -> list[str]:
    """Those that the views fold, or that the code of their transformations names, and `created`."""
    wanted: set[str | None] = {EVENT_ID, created}
    for view in views:
        wanted |= {*(key.name for key in view.join_keys), *view.spec.value_columns, *view.spec.distinct_columns}
        if view.transform is not None:
            named = names_in(view.transform)
            wanted |= set(history.names if named is None else named)
    return [name for name in history.names if name in wanted]
