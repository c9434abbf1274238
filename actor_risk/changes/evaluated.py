"""What the process of one version says of its values: the files that `evaluating` writes and `profiling` reads.

`values.parquet` has a row for each query. Its columns are those named here, `asked:<view>` (whether the query has an
entity of the view), and `<view>:<feature>`. What is no number is there as a hash.
"""

from __future__ import annotations

import msgspec

from actor_risk.changes.described import Problem

VALUES_FILE = "values.parquet"
TOLD_FILE = "values.json"

TOPIC, EVENT_ID, AS_OF, LABEL = "topic", "event_id", "as_of_ms", "label"
ASKED = "asked:"
HASHED = b"hashed"
"""In the metadata of a column: its values are hashes of what the feature has."""


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one version was evaluated.

    events: of all topics. label: the names of the labels' tables. leaks: `view:feature` → in how many of leak_queries
    its value changed when later events were left out. untold: view → why its values could not be computed, where that
    is nobody's mistake.
    """

    sample: str
    events: int
    queries: int
    label: str = ""
    problems: tuple[Problem, ...] = ()
    leaks: dict[str, int] = {}
    leak_queries: int = 0
    untold: dict[str, str] = {}
