"""A short way to write windowed features: one line for a column, a function and its windows."""

from datetime import timedelta

from feast.aggregation import Aggregation
from feast.field import Field
from feast.types import Float64, Int64, String

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
INTEGERS = ("count", "count_distinct")


def windowed(name: str, column: str, function: str, windows: str, about: str) -> list[tuple[Aggregation, Field]]:
    """The features `<name>_<window>` for each of the windows, such as "5m 1h 24h 7d"."""
    dtype = Int64 if function in INTEGERS else Float64
    return [
        (
            Aggregation(
                column=column,
                function=function,
                time_window=timedelta(**{UNITS[window[-1]]: int(window[:-1])}),
                name=f"{name}_{window}",
            ),
            Field(name=f"{name}_{window}", dtype=dtype, description=f"{about}, last {window}"),
        )
        for window in windows.split()
    ]


def stream_features(join_key: str, *groups: list[tuple[Aggregation, Field]]) -> dict[str, list]:
    """The `aggregations` and `schema` of a stream view."""
    pairs = [pair for group in groups for pair in group]
    return {
        "aggregations": [aggregation for aggregation, _ in pairs],
        "schema": [Field(name=join_key, dtype=String), *(field for _, field in pairs)],
    }
