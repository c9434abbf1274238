"""Every feature of one version on a sample, computed by the code that training uses: in the version's own process.

    sample ──► newest events of each topic ──► queries ──► PointInTime: stored features ──► on-demand functions ──► file

Queries are the same in both versions, since they depend on the events alone: some of the last events of each topic,
each asked for as of the moment before it and as of itself, with the entities and the request that it brings.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureService, FeatureStore, FileSource
from feast.on_demand_feature_view import OnDemandFeatureView

from actor_risk.changes.asked_events import AskedEvents, Ints, Mask, Objects, StoredView, have_keys
from actor_risk.changes.described import Problem
from actor_risk.changes.evaluated import (
    AS_OF,
    ASKED,
    EVENT_ID,
    HASHED,
    LABEL,
    TOLD_FILE,
    TOPIC,
    VALUES_FILE,
    Evaluated,
)
from actor_risk.changes.failures import code_text, failure
from actor_risk.changes.labels import labels_of
from actor_risk.changes.sampling import EVENTS_MAX, in_sample, newest_events, newest_since, written
from actor_risk.changes.shifting import leaks_of
from materialize.definitions import DefinitionError, OnDemandView, StreamView, View, compile_service, compile_view
from materialize.events import hash_binary
from materialize.offline import ARROW_TYPES, PointInTime, ViewColumns, ViewQuery, open_history

QUERIES_MAX = 2_000
"""Rows that are evaluated for each topic: half as many events, each as of two moments."""
LAST_PART = 4
"""Queries are of the last quarter of the events, so that windows before them have something to count."""

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)


def evaluate(store: FeatureStore, sample: Path, folder: Path) -> None:
    """Write the values of all features on the sample, and what went wrong with them, to `folder`: see `evaluated`.

    Raises HistoryError for events of the sample that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=folder) as copies:
        warnings.simplefilter("ignore")  # what transformations divide by is not this command's to tell
        _evaluate(store, sample, folder, Path(copies))


def _evaluate(store: FeatureStore, sample: Path, folder: Path, copies: Path) -> None:
    untold: dict[str, str] = {}
    views = _stored_views(store, sample, copies, untold)
    topics = _topics(views)
    queries = Queries.of(topics)
    problems: list[Problem] = []
    stored = _stored_values(store, views, queries, problems)
    on_demand, asked = _on_demand(store, views, stored, queries, problems)
    labels = labels_of(sample, [topic for topic, _ in queries.topics])
    leaks, leak_queries = leaks_of(topics, copies / "shifted", {problem.subject for problem in problems})
    columns = {f"{view.view.name}:{name}": column for view in views for name, column in _named(stored, view)}
    masks = {view.view.name: queries.asked_of(view) for view in views if view.view.name in stored} | asked
    table = queries.table(labels.values, masks, columns | on_demand)
    pq.write_table(table, folder / VALUES_FILE)
    told = Evaluated(
        sample=str(sample),
        events=sum(topic.table.num_rows for topic in topics),
        queries=table.num_rows,
        label=", ".join(labels.names),
        problems=tuple(problems),
        leaks=leaks,
        leak_queries=leak_queries,
        untold=untold,
    )
    (folder / TOLD_FILE).write_bytes(msgspec.json.encode(told))


@dataclass(frozen=True)
class Queries:
    """Rows of several topics, one topic after the other: all its events as of just before them, then as of them."""

    topics: tuple[tuple[AskedEvents, slice], ...]
    times: Ints

    @staticmethod
    def of(topics: Sequence[AskedEvents]) -> Queries:
        """The queries of these topics' events."""
        found, times, begin = [], [np.empty(0, np.int64)], 0
        for topic in topics:
            chosen = topic.take(_chosen(len(topic)))
            found.append((chosen, slice(begin, begin + 2 * len(chosen))))
            times += [chosen.times - 1, chosen.times]
            begin += 2 * len(chosen)
        return Queries(tuple(found), np.concatenate(times))

    def keys(self, view: View, names: Sequence[str]) -> list[Objects]:
        """For each join key of the view the value of each row, None where its topic has none."""
        columns: list[Objects] = [np.full(len(self.times), None, dtype=object) for _ in names]
        for topic, rows in self.topics:
            for column, own in zip(columns, topic.keys(view, names) or (), strict=False):
                column[rows] = np.concatenate([own, own])
        return columns

    def of_topic(self, name: str) -> Mask:
        """The rows of a topic."""
        mask = np.zeros(len(self.times), dtype=bool)
        for topic, rows in self.topics:
            if topic.topic == name:
                mask[rows] = True
        return mask

    def asked_of(self, view: StoredView) -> Mask:
        """The rows that ask for the view: those of its topic, or of a table's most frequent one, that have its keys."""
        keyed = have_keys(self.keys(view.view, [key.name for key in view.view.join_keys]), len(self.times))
        return keyed & self.of_topic(view.source.name) if view.is_stream else self.most_frequent(keyed)

    def most_frequent(self, rows: Mask) -> Mask:
        """Of the rows those of the topic that most of them are of: what is compared is of one kind."""
        each = [rows & self.of_topic(topic.topic) for topic, _ in self.topics]
        return max(each, key=lambda mask: int(mask.sum()), default=rows)

    def fields(self, names: Sequence[str]) -> tuple[dict[str, list[Any]], Mask]:
        """The fields of requests for each row, and which rows' topics have all of them."""
        columns: dict[str, list[Any]] = {name: [None] * len(self.times) for name in names}
        there = np.zeros(len(self.times), dtype=bool)
        for topic, rows in self.topics:
            found = {name: topic.field(name) for name in names}
            there[rows] = all(values is not None for values in found.values())
            for name, values in found.items():
                columns[name][rows] = [*(values or [None] * len(topic)), *(values or [None] * len(topic))]
        return columns, there

    def table(
        self, labels: Sequence[np.ndarray[Any, Any]], asked: Mapping[str, Mask], values: Mapping[str, pa.Array]
    ) -> pa.Table:
        """All as `evaluated` has it. labels: float64[events] of each topic, which belong to the later of two rows."""
        topics = [topic.topic for topic, _ in self.topics for _ in range(2 * len(topic))]
        identities = [one for topic, _ in self.topics for _ in range(2) for one in topic.identities]
        label = np.concatenate([np.empty(0), *(np.concatenate([np.full(len(own), np.nan), own]) for own in labels)])
        columns = {TOPIC: topics, EVENT_ID: identities, AS_OF: self.times, LABEL: label}
        columns |= {ASKED + view: mask for view, mask in asked.items()}
        fields = [pa.field(name, pa.array(column).type) for name, column in columns.items()]
        arrays = [pa.array(column) for column in columns.values()]
        for name, column in values.items():
            plain, is_hashed = _comparable(column)
            fields.append(pa.field(name, plain.type, metadata={HASHED: b"1"} if is_hashed else None))
            arrays.append(plain)
        return pa.table(arrays, pa.schema(fields))


def _chosen(count: int) -> Ints:
    """The positions of the events that are asked for, evenly over the last part of so many."""
    first = count - -(-count // LAST_PART)
    return np.unique(np.linspace(first, count - 1, min(count - first, QUERIES_MAX // 2)).astype(np.int64))


def _comparable(column: Any) -> tuple[pa.Array, bool]:
    """A column whose values can be compared between versions: numbers as they are, all else hashed, NaN as null."""
    found = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(found, pa.ChunkedArray):
        found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], found.type)
    if pa.types.is_null(found.type):
        return found.cast(pa.float64()), False
    if any(test(found.type) for test in _NUMBERS):
        return pa.array(found.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), from_pandas=True), False
    texts = [None if value is None else repr(value).encode() for value in found.to_pylist()]
    hashes = hash_binary(pa.array([text or b"" for text in texts], pa.binary()))
    return pa.array(hashes, mask=np.array([text is None for text in texts])), True


def _stored_views(store: FeatureStore, sample: Path, folder: Path, untold: dict[str, str]) -> list[StoredView]:
    """All views that have history in the sample; each topic's is cut to its newest events once."""
    found: list[StoredView] = []
    cut: dict[str, FileSource] = {}
    for view in [*store.list_stream_feature_views(), *store.list_batch_feature_views()]:
        try:
            compiled = compile_view(view)
        except DefinitionError:  # the repository's description tells that
            continue
        source = in_sample(view, sample)
        if source is None:
            untold[view.name] = "the sample has no data of its source"
        elif isinstance(compiled, StreamView):
            if source.name not in cut:
                cut[source.name] = _newest(source, folder)
            found.append(StoredView(compiled, cut[source.name]))
        else:
            found.append(StoredView(compiled, source))
    return found


def _newest(source: FileSource, folder: Path) -> FileSource:
    if newest_since(source, EVENTS_MAX) is None:
        return source
    return written(source, newest_events(source, EVENTS_MAX), folder / f"{source.name}.parquet")


def _topics(views: Sequence[StoredView]) -> list[AskedEvents]:
    """The events of each topic, with all stream views that read it; a topic whose events have no identity has none."""
    sources = {view.source.name: view.source for view in views if view.is_stream}
    found = []
    for name, source in sorted(sources.items()):
        readers = tuple(v.view for v in views if isinstance(v.view, StreamView) and v.source.name == name)
        table = open_history(source, None).table().sort_by(source.timestamp_field)
        if EVENT_ID in table.column_names and table.num_rows:
            found.append(AskedEvents(_unmapped(source), table, readers))
    return found


def _unmapped(source: FileSource) -> FileSource:
    """What says how the columns of events already read are called."""
    return FileSource(
        name=source.name,
        path=source.path,
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
    )


def _stored_values(
    store: FeatureStore, views: Sequence[StoredView], queries: Queries, problems: list[Problem]
) -> dict[str, ViewColumns]:
    """View → its features for each row. One that fails has a problem instead."""
    asked = {
        view.view.name: ViewQuery(
            view.view,
            view.source,
            tuple(field.name for field in view.view.fields),
            queries.keys(view.view, [key.name for key in view.view.join_keys]),
        )
        for view in views
    }
    if not len(queries.times):
        return {}
    try:
        found = _values(list(asked.values()), queries.times)
        return dict(zip(asked, found, strict=True))
    except Exception:  # transformations are anybody's code: which of them fails is found one by one
        return dict(_one_by_one(store, asked, queries.times, problems))


def _one_by_one(
    store: FeatureStore, asked: Mapping[str, ViewQuery], times: Ints, problems: list[Problem]
) -> Iterator[tuple[str, ViewColumns]]:
    for name, query in asked.items():
        try:
            yield name, _values([query], times)[0]
        except Exception as error:  # as above
            feast_view = store.registry.get_any_feature_view(name, store.project)
            code = code_text(getattr(feast_view, "udf_string", None), getattr(feast_view, "udf", None))
            problems.append(failure(name, error, code, store.config.repo_path))


def _values(queries: Sequence[ViewQuery], times: Ints) -> list[ViewColumns]:
    return PointInTime(tuple(queries), times, None).values(np.arange(len(times)))


def _named(stored: Mapping[str, ViewColumns], view: StoredView) -> Iterator[tuple[str, Any]]:
    values = stored.get(view.view.name)
    if values is not None:
        yield from zip(values.names, values.columns, strict=True)


def _on_demand(
    store: FeatureStore,
    views: Sequence[StoredView],
    stored: Mapping[str, ViewColumns],
    queries: Queries,
    problems: list[Problem],
) -> tuple[dict[str, Any], dict[str, Mask]]:
    """`view:feature` → values of the on-demand views, and view → the rows that ask for it."""
    columns: dict[str, Any] = {}
    asked: dict[str, Mask] = {}
    for view in store.list_on_demand_feature_views():
        given = _given(store, view, views, stored, queries)
        if given is None:
            continue
        try:
            found = given.run()
        except Exception as error:  # the function is anybody's code
            code = code_text(view.feature_transformation.udf_string, view.feature_transformation.udf)
            problems.append(failure(view.name, error, code, store.config.repo_path))
            continue
        columns |= {f"{view.name}:{name}": column for name, column in found.items()}
        asked[view.name] = given.rows
    return columns, asked


@dataclass(frozen=True)
class _Given:
    """What an on-demand function is given: names → values of the rows that ask for it, of `count` in all."""

    view: OnDemandView
    columns: dict[str, list[Any]]
    rows: Mask

    def run(self) -> dict[str, pa.Array]:
        """The view's features for all rows. Raises what the function does, DefinitionError for what is no result."""
        places = np.flatnonzero(self.rows)
        found = self._singly(len(places)) if self.view.singleton else self.view.function(dict(self.columns))
        result: dict[str, pa.Array] = {}
        for field in self.view.fields:
            if field.name not in found:
                raise DefinitionError(f"its function gives no {field.name!r}")
            if len(found[field.name]) != len(places):
                raise DefinitionError(f"its function gives another number of values for {field.name!r}")
            whole: Objects = np.full(len(self.rows), None, dtype=object)
            whole[places] = list(found[field.name])
            result[field.name] = pa.array(whole, ARROW_TYPES.get(field.kind), from_pandas=True)
        return result

    def _singly(self, count: int) -> dict[str, list[Any]]:
        rows = [{name: column[i] for name, column in self.columns.items()} for i in range(count)]
        found = [self.view.function(row) for row in rows]
        return {field.name: [one.get(field.name) for one in found] for field in self.view.fields}


def _given(
    store: FeatureStore,
    view: OnDemandFeatureView,
    views: Sequence[StoredView],
    stored: Mapping[str, ViewColumns],
    queries: Queries,
) -> _Given | None:
    """What the view's function is given; None if it cannot be compiled, or one of its inputs has no values."""
    try:
        service = compile_service(FeatureService(name="", features=[view]), store.registry, store.project)
    except DefinitionError:  # the repository's description tells that
        return None
    compiled = service.on_demand[0]
    sources = {one.view.name: one.source for one in views}
    fields, rows = queries.fields([field.name for field in compiled.requests])
    columns: dict[str, Any] = {}
    for read in service.views:
        if read.view.name not in stored:
            return None
        keys = queries.keys(read.view, read.key_names)
        rows &= have_keys(keys, len(rows))
        values = stored[read.view.name]
        if read.key_names != tuple(key.name for key in read.view.join_keys):
            query = ViewQuery(read.view, sources[read.view.name], read.features, keys)
            values = _values([query], queries.times)[0]
        for name in read.features:
            column = values.columns[values.names.index(name)]
            columns[name] = columns[f"{read.called}__{name}"] = column
    rows = queries.most_frequent(rows)
    places = np.flatnonzero(rows)
    inputs = {name: column.take(pa.array(places)).to_pylist() for name, column in columns.items()}
    requests = {name: [values[place] for place in places] for name, values in fields.items()}
    return _Given(compiled, inputs | requests, rows)
