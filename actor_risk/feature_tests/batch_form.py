"""The batch form: what training does. History in Parquet, `get_historical_features` over it, on-demand functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from actor_risk.errors import ActorRiskError
from actor_risk.feature_tests.binding import BoundCase
from actor_risk.feature_tests.repo import RepoUnderTest
from actor_risk.feature_tests.topics import history_of
from materialize.definitions import StreamView
from materialize.offline.feast_store import EVENT_TIMESTAMP, PointInTimeJob


@dataclass(frozen=True)
class FormValues:
    """What one form gives as of one time: feature → value, None for null; or why it gives nothing. inputs: the stored
    features that on-demand ones are made of, where the form says them."""

    values: dict[str, Any]
    failure: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)


def write_history(repo: RepoUnderTest, bound: BoundCase) -> None:
    """Put the case's events and rows where the sources of its views look."""
    for row in bound.plan.rows:
        view = row.view
        if isinstance(view, StreamView):
            repo.write_history(repo.source(view.name), history_of(view.topic, bound.events[view.topic]))
        else:
            repo.write_history(repo.source(view.name), bound.profiles[view.name])


def batch_values(repo: RepoUnderTest, bound: BoundCase) -> list[FormValues]:
    """What training would have for each moment of the case, whose history is written."""
    case = bound.case
    asked = repo.asked(case.subject.text, is_service=case.is_service)
    try:
        job = repo.store.get_historical_features(_frame(bound), asked)
        if not isinstance(job, PointInTimeJob):
            raise ActorRiskError(
                "feature_store.yaml names another offline store than materialize.offline.feast_store."
                "WindowedParquetOfflineStore: tests need the one that shares the kernel with serving"
            )
        stored = job.stored()
    except ActorRiskError:
        raise
    except Exception as error:  # the author's code runs in it
        return [FormValues({}, str(error) or repr(error))] * len(bound.moments)
    inputs = _rows(stored, stored.column_names)
    found = _with_on_demand(job, stored, list(bound.tolerances))
    return [replace(form, inputs=given.values) for form, given in zip(found, inputs, strict=True)]


def _with_on_demand(job: PointInTimeJob, stored: pa.Table, names: list[str]) -> list[FormValues]:
    try:
        return _rows(job.with_on_demand(stored), names)
    except Exception:  # an on-demand function: rows that do not fail have values all the same
        return [_row(job, stored.slice(place, 1), names) for place in range(stored.num_rows)]


def _row(job: PointInTimeJob, stored: pa.Table, names: list[str]) -> FormValues:
    try:
        return _rows(job.with_on_demand(stored), names)[0]
    except Exception as error:  # the author's code
        there = [name for name in names if name in stored.column_names]
        return FormValues(_rows(stored, there)[0].values, f"an on-demand function failed: {error!r}")


def _rows(table: pa.Table, names: list[str]) -> list[FormValues]:
    columns = {name: [_plain(value) for value in table.column(name).to_pylist()] for name in names}
    return [FormValues({name: columns[name][row] for name in names}) for row in range(table.num_rows)]


def _plain(value: Any) -> Any:
    """NaN is no value, as it is online."""
    return None if isinstance(value, float) and value != value else value


def _frame(bound: BoundCase) -> pd.DataFrame:
    """The entity dataframe: join keys, request values, as-of times."""
    columns: dict[str, pd.Series[Any]] = {}
    for key in bound.plan.join_keys:
        columns[key.name] = pd.Series([moment.entity[key.name] for moment in bound.moments], dtype=object)
    for one in bound.plan.request_fields:
        values = [moment.request[one.name] for moment in bound.moments]
        columns[one.name] = pd.Series(values, dtype="float64" if one.kind in ("DOUBLE", "FLOAT") else object)
    frame = pd.DataFrame(columns)
    times = np.array([moment.as_of_ms for moment in bound.moments], "datetime64[ms]")
    frame[EVENT_TIMESTAMP] = pd.Series(times).dt.tz_localize("UTC")
    return frame
