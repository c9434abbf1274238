"""Windows, aggregations and tiles: pure functions on integers and arrays, the same for stream, batch and serving.

    events ──► fold ──► tiles ──► merge (read time) ──► finalize ──► values
                 └────────── the same fold, without tiles, for training sets ──┘

Nothing here does I/O, reads a clock or knows Redis, Feast or Ray.
"""

from materialize.kernel._aggregations import FUNCTIONS, Aggregation
from materialize.kernel._blocks import EventBlock, concat_blocks, empty_block, hash_value, hash_values
from materialize.kernel._compiled import (
    BAD_SHAPE,
    FOUND,
    META_SIZE,
    NOT_FOUND,
    fold_rows,
    group_events,
    merge_rows,
    replace_rows,
)
from materialize.kernel._errors import KernelError, UnknownFunctionError, WindowError
from materialize.kernel._hashing import hash_strings
from materialize.kernel._partials import DISTINCT_EXACT_MAX, DISTINCT_RELATIVE_STD_ERROR, Sets
from materialize.kernel._point_in_time import values_as_of
from materialize.kernel._program import compile_program, hop_starts, program_reaches
from materialize.kernel._rows import (
    HEAD_MAX,
    KEEP_SLACK_MS,
    NO_TIME_MS,
    ROW_BYTES_MAX,
    FoldCounts,
    Row,
    WindowValues,
    empty_row,
    fold_events,
    read_windows,
    replace_batch_side,
    row_bytes_max,
)
from materialize.kernel._tiles import Tiles, gather_ranges
from materialize.kernel._views import AggregationSpec, HopLayout, ViewSpec
from materialize.kernel._windows import Window, default_hop_ms

__all__ = [
    "BAD_SHAPE",
    "DISTINCT_EXACT_MAX",
    "DISTINCT_RELATIVE_STD_ERROR",
    "FOUND",
    "FUNCTIONS",
    "HEAD_MAX",
    "KEEP_SLACK_MS",
    "META_SIZE",
    "NOT_FOUND",
    "NO_TIME_MS",
    "ROW_BYTES_MAX",
    "Aggregation",
    "AggregationSpec",
    "EventBlock",
    "FoldCounts",
    "HopLayout",
    "KernelError",
    "Row",
    "Sets",
    "Tiles",
    "UnknownFunctionError",
    "ViewSpec",
    "Window",
    "WindowError",
    "WindowValues",
    "compile_program",
    "concat_blocks",
    "default_hop_ms",
    "empty_block",
    "empty_row",
    "fold_events",
    "fold_rows",
    "gather_ranges",
    "group_events",
    "hash_strings",
    "hash_value",
    "hash_values",
    "hop_starts",
    "merge_rows",
    "program_reaches",
    "read_windows",
    "replace_batch_side",
    "replace_rows",
    "row_bytes_max",
    "values_as_of",
]
