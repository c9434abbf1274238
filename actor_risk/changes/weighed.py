"""What the process of one version says of its costs: the file that `weighing` writes and `costing` reads."""

from __future__ import annotations

import msgspec

COSTS_FILE = "costs.json"


class WeighedView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One view on the sample.

    actors: that have a row. events: of history, that a backfill reads. rows: that it writes. bytes_per_actor: with key
    and what Redis needs for it. value_bytes: of the row alone. The seconds are those of a whole backfill: read_seconds
    of history to what is folded or encoded, fold_seconds to the rows' bytes.
    """

    view: str
    actors: int = 0
    events: int = 0
    rows: int = 0
    bytes_per_actor: float = 0.0
    value_bytes: float = 0.0
    tiles_per_row: float = 0.0
    read_seconds: float = 0.0
    fold_seconds: float = 0.0


class WeighedService(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One service. merge_us: from rows' bytes to a request's features, measured; 0 where a view of it has no rows."""

    service: str
    merge_us: float = 0.0


class Weighed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All views and services of one version. untold: view → why it could not be weighed."""

    views: tuple[WeighedView, ...] = ()
    services: tuple[WeighedService, ...] = ()
    untold: dict[str, str] = {}
