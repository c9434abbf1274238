"""The job of one view: quality stops it before it writes, definitions and files decide what is believed, errors leave
nothing half done."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import FeatureStore, FeatureView, types
from feast.field import Field

from materialize.backfill import (
    Inline,
    JobSettings,
    QualityError,
    RowsLostError,
    Span,
    StoppedError,
    ViewBusyError,
    ViewJob,
    ViewReport,
)
from materialize.offline import HistoryError
from materialize.online import RedisSettings
from tests.support.small_store import at, file_source, ip, profiles, small_store

DAY_MS = 86_400_000
BEGIN_MS = 1_763_596_800_000
DAYS = 6
SPAN = Span(BEGIN_MS, BEGIN_MS + DAYS * DAY_MS)
ROWS_A_DAY = 1_000


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def history(directory: Path, scores: Any) -> FeatureView:
    """A view whose `score` of day d is scores[d], of as many IPs; tags come later."""
    rows = [
        {"ip": f"{number}", "event_time": BEGIN_MS + day * DAY_MS + number, "score": score}
        for day, of_day in enumerate(scores)
        for number, score in enumerate(of_day)
    ]
    return view(
        file_source(directory, "profiles", profiles(rows, score=pa.float64()), created_timestamp_column="created")
    )


def view(source: Any, ttl: timedelta = timedelta(0), **tags: str) -> FeatureView:
    schema = [Field(name="score", dtype=types.Float64)]
    named = {name.replace("__", ":"): value for name, value in tags.items()}
    return FeatureView(name="profile", entities=[ip], schema=schema, source=source, ttl=ttl, tags=named)


def steady() -> list[Any]:
    return list(np.random.default_rng(5).lognormal(size=(DAYS, ROWS_A_DAY)))


class Bench:
    """Runs jobs of one small view."""

    def __init__(self, directory: Path, redis_url: str, project: str, client: redis.Redis) -> None:
        self.directory = directory
        self._client = client
        self._url = redis_url
        self.project = project
        self.watermark: list[Span] = []

    def settings(self, **changed: Any) -> JobSettings:
        return JobSettings(
            self.project, self.directory, RedisSettings(url=self._url), self.directory / "state", **changed
        )

    def store(self, feature_view: FeatureView) -> FeatureStore:
        return small_store(self.directory, self.project, self._url, [ip, feature_view])

    def run(
        self, feature_view: FeatureView, stop_after: int | None = None, span: Span = SPAN, **changed: Any
    ) -> ViewReport:
        """A job to its end, or until so many parts are done."""
        stored = self.store(feature_view).get_feature_view("profile")
        self.job = ViewJob(stored, span, self.settings(**changed), self._client)
        parts = 0

        def tell(status: Any) -> None:
            nonlocal parts
            parts = status.parts_done if status.phase == "writing" else 0

        def alive() -> None:
            if stop_after is not None and parts >= stop_after:
                raise StoppedError("enough")

        return self.job.run(Inline(self._client), alive, tell, self.watermark.append)

    def rows(self) -> dict[bytes, bytes | None]:
        return {key: self._client.get(key) for key in self._client.scan_iter(f"{self.project}:profile:*")}


@pytest.fixture
def bench(tmp_path: Path, redis_url: str, redis_namespace: str, client: redis.Redis) -> Bench:
    return Bench(tmp_path, redis_url, redis_namespace, client)


def with_tags(feature_view: FeatureView, **tags: str) -> FeatureView:
    return view(feature_view.batch_source, **tags)


def test_a_resumed_job_does_only_what_is_missing(bench: Bench) -> None:
    made = history(bench.directory, steady())
    with pytest.raises(StoppedError):
        bench.run(made, stop_after=2)
    assert bench.job.report().outcome == "stopped"
    assert bench.watermark == []
    report = bench.run(made, is_resumed=True)
    assert (report.chunks, report.chunks_known) == (DAYS, 2)
    assert report.counts.events == (DAYS - 2) * ROWS_A_DAY
    assert bench.watermark == [SPAN]
    assert len(bench.rows()) == ROWS_A_DAY
    assert bench.run(made, is_resumed=True).outcome == "nothing to do"
    assert bench.run(made).counts.events == DAYS * ROWS_A_DAY


def test_another_step_or_span_believes_what_was_done_with_the_first(bench: Bench) -> None:
    made = history(bench.directory, steady())
    bench.run(made)
    wider = Span(SPAN.start_ms - 2 * DAY_MS, SPAN.end_ms)
    assert bench.run(made, span=wider, is_resumed=True, step_ms=DAY_MS // 4).counts.events == 0
    assert bench.run(made, span=Span(SPAN.start_ms + 7, SPAN.end_ms - 7), is_resumed=True).outcome == "nothing to do"


@pytest.mark.parametrize("changed", [{"ttl": timedelta(days=30)}, {"type": types.Float32}])
def test_a_changed_definition_believes_nothing_and_leaves_nothing_of_the_old_one(
    bench: Bench, changed: dict[str, Any]
) -> None:
    made = history(bench.directory, steady())
    bench.run(made)
    old = set((bench.directory / "state").rglob("*.json"))
    other = view(made.batch_source, changed.get("ttl", timedelta(0)))
    if "type" in changed:
        other = FeatureView(
            name="profile", entities=[ip], schema=[Field(name="score", dtype=types.Float32)], source=made.batch_source
        )
    assert bench.run(other, is_resumed=True).counts.events == DAYS * ROWS_A_DAY
    assert not any(path.exists() for path in old)


def test_a_description_is_no_part_of_the_definition(bench: Bench) -> None:
    made = history(bench.directory, steady())
    bench.run(made)
    assert bench.run(with_tags(made, tier="1"), is_resumed=True).outcome == "nothing to do"


def spoilt(day: int, values: Any) -> list[Any]:
    scores = steady()
    scores[day] = values
    return scores


NULLS = [None if number % 2 else 1.0 + number for number in range(ROWS_A_DAY)]


@pytest.mark.parametrize(
    ("tag", "limit", "scores"),
    [
        ("quality:null_rate_max:score", "0.2", spoilt(3, NULLS)),
        ("quality:distinct_min:score", "100", spoilt(3, [1.0] * ROWS_A_DAY)),
        ("quality:distinct_max:score", "2000", spoilt(3, list(np.arange(4_000.0)))),
        ("quality:max:score", "1000", spoilt(3, [*steady()[3][:-1], 1e6])),
        ("quality:min:score", "0", spoilt(3, [*steady()[3][:-1], -1.0])),
        ("quality:drift_max:score", "0.25", spoilt(3, list(steady()[3] * 3))),
        ("quality:rows_min", "500", spoilt(3, [])),
    ],
)
def test_a_broken_limit_stops_the_job_before_it_writes(bench: Bench, tag: str, limit: str, scores: Any) -> None:
    made = view(history(bench.directory, scores).batch_source, **{tag.replace(":", "__"): limit})
    with pytest.raises(QualityError, match=tag) as refused:
        bench.run(made)
    assert "2025-11-23" in str(refused.value)
    assert "2025-11-22T" not in str(refused.value).replace("2025-11-23T00:00:00Z – 2025-11-24", "")
    assert not bench.rows()
    assert bench.watermark == []
    report = bench.job.report()
    assert report.outcome == "quality"
    assert report.quality
    written = bench.run(made, is_resumed=True, ignores_quality=True)
    assert written.outcome == "done"
    assert written.quality
    assert bench.rows()


def test_good_data_keeps_the_same_limits(bench: Bench) -> None:
    tags = {
        "quality__null_rate_max__score": "0.2",
        "quality__distinct_min__score": "100",
        "quality__max__score": "1000",
        "quality__min__score": "0",
        "quality__drift_max__score": "0.25",
        "quality__rows_min": "500",
    }
    report = bench.run(view(history(bench.directory, steady()).batch_source, **tags))
    assert report.outcome == "done"
    (column,) = report.columns
    assert column.name == "score"
    assert column.null_rate == 0
    assert column.distinct == pytest.approx(DAYS * ROWS_A_DAY, rel=0.2)
    assert 0 < (column.drift_max or 0) < 0.1
    values = np.concatenate(steady())
    assert (column.low, column.high) == pytest.approx((values.min(), values.max()), rel=1e-3)


@pytest.mark.parametrize(
    ("tag", "limit", "told"),
    [
        ("quality:null_rate_max:score", "few", "write a number"),
        ("quality:null_rate:score", "0.1", "is no limit"),
        ("quality:null_rate_max:points", "0.1", "names no column"),
    ],
)
def test_a_tag_that_is_no_limit_is_told_before_anything_is_read(bench: Bench, tag: str, limit: str, told: str) -> None:
    made = view(history(bench.directory, steady()).batch_source, **{tag.replace(":", "__"): limit})
    with pytest.raises(QualityError, match=told):
        bench.run(made)


def unreadable(path: Path) -> None:
    path.write_bytes(b"no Parquet")


def missing(path: Path) -> None:
    path.unlink()


def without_the_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["score"]), path)


def of_another_type(path: Path) -> None:
    table = pq.read_table(path)
    place = table.column_names.index("score")
    pq.write_table(table.set_column(place, "score", pa.array(["high"] * len(table))), path)


@pytest.mark.parametrize("spoil", [unreadable, missing, without_the_column, of_another_type])
def test_history_that_cannot_be_used_writes_nothing(bench: Bench, spoil: Any) -> None:
    made = history(bench.directory, steady())
    spoil(bench.directory / "profiles.parquet")
    with pytest.raises(HistoryError, match=r"profiles|score"):
        bench.run(made)
    assert bench.job.report().outcome == "failed" if spoil not in (unreadable, missing) else True
    assert not bench.rows()
    assert bench.watermark == []


def test_a_span_without_rows_is_done_and_says_that_it_had_none(bench: Bench) -> None:
    made = history(bench.directory, steady())
    before = Span(SPAN.start_ms - 10 * DAY_MS, SPAN.start_ms)
    report = bench.run(made, span=before)
    assert (report.outcome, report.counts.events, report.chunks) == ("done", 0, 1)
    assert bench.watermark == [before]
    assert bench.run(made, span=before, is_resumed=True).outcome == "nothing to do"


def test_a_view_that_another_machine_holds_is_refused_while_it_lives(bench: Bench, client: redis.Redis) -> None:
    made = history(bench.directory, steady())
    key = f"{bench.project}:backfill/{{profile}}:lease"
    held = '{"id": "x", "host": "elsewhere", "boot": "b", "pid": 1, "since_ms": 0}'
    client.set(key, held, px=1_000)
    assert bench.run(made).outcome == "done"  # it died: its lease ran out
    client.set(key, held, px=1_000)

    def renew() -> None:
        client.set(key, held, px=60_000)

    job = ViewJob(bench.store(made).get_feature_view("profile"), SPAN, bench.settings(), client)
    with pytest.raises(ViewBusyError, match="process 1 on elsewhere"):
        job.run(Inline(client), renew, lambda _: None, bench.watermark.append)


def test_the_rows_of_a_view_that_is_deleted_are_not_believed_when_it_comes_back(bench: Bench) -> None:
    made = history(bench.directory, steady())
    store = bench.store(made)
    store.materialize(at(SPAN.start_ms), at(SPAN.end_ms), ["profile"])
    assert bench.rows()
    store.apply([], objects_to_delete=[store.get_feature_view("profile")], partial=False)
    assert not bench.rows()
    state = bench.directory / "backfill"
    job = ViewJob(
        bench.store(history(bench.directory, steady())).get_feature_view("profile"),
        SPAN,
        JobSettings(bench.project, bench.directory, bench.settings().redis, state, is_resumed=True),
        bench._client,
    )
    assert len(job.plan().to_write) == DAYS


def test_redis_that_goes_back_while_a_job_runs_fails_it_and_a_resumed_one_mends_it(
    bench: Bench, client: redis.Redis
) -> None:
    made = history(bench.directory, steady())
    bench.run(made)
    undisturbed = bench.rows()
    client.delete(*undisturbed, f"{bench.project}:backfill/{{profile}}:mark")
    job = ViewJob(bench.store(made).get_feature_view("profile"), SPAN, bench.settings(), client)

    def empty_when_two_are_done(status: Any) -> None:
        if status.phase == "writing" and status.parts_done == 2:
            client.delete(*bench.rows(), f"{bench.project}:backfill/{{profile}}:mark")

    with pytest.raises(RowsLostError, match="--resume"):
        job.run(Inline(client), lambda: None, empty_when_two_are_done, bench.watermark.append)
    assert bench.watermark == [SPAN]  # that of the first job
    assert bench.run(made, is_resumed=True).counts.events == DAYS * ROWS_A_DAY
    assert bench.rows() == undisturbed


def test_other_keys_of_the_project_are_left_alone(bench: Bench, client: redis.Redis) -> None:
    client.set(f"{bench.project}:definitions", "1 ab")
    bench.run(history(bench.directory, steady()))
    kept = {*client.scan_iter(f"{bench.project}:*")} - {*bench.rows()}
    assert kept == {f"{bench.project}:definitions".encode(), f"{bench.project}:backfill/{{profile}}:mark".encode()}
