"""What the scoring benchmark asks about: actors of four kinds, their 60 features, a model, and the requests.

Each kind of actor has a row of 9 stored features and one of 6 windowed features over full tiles: a request reads eight
rows. The model is a LightGBM classifier of 300 trees, depth 6, on these values.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import redis
import yaml
from feast import Entity, FeatureService, FeatureView, FileSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.data_source import KafkaSource
from feast.field import Field
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

from actor_risk.home import Home
from bench.actors import WINDOWS, draw_actors, is_integer
from bench.gbdt import train_gbdt
from bench.load import post
from bench.tiles import full_row
from materialize.definitions import BatchView, StreamView, open_feature_store
from materialize.kernel import Row, read_windows
from materialize.online import FeatureReaderSync, ReadPlan, RowWriter, StreamRow, encode_batch_columns
from models import CHAMPION, Bundle, BundleDraft, Feature, ModelCard, Service, Thresholds
from models.admission import read_graph
from models.explain import PathDependentTrees
from models.explain._trees import path_dependent_tables
from models.export import export_lightgbm
from models.manifest import reason_code
from models.trees import Ensemble, read_trees

PROJECT, SERVICE, MODEL = "bench", "sixty", "bench_risk"
KINDS = {"advertiser": "advertiser_id", "creator": "creator_id", "ip": "ip", "device": "device_id"}
"""Kind of actor → join key."""

FUNCTIONS = {
    "advertiser": ("count", "sum"),
    "creator": ("mean", "max"),
    "ip": ("sum", "var"),
    "device": ("min", "last"),
}
STORED = 9
ACTORS = 1_000
REQUESTS, BATCH_REQUESTS, BATCH = 4_000, 100, 100
TRAINING_ROWS, BACKGROUND = 20_000, 1_000
GOLDEN_ROWS = 32
AGE_MS = 60_000

Floats = np.ndarray[Any, np.dtype[np.float64]]
Key = Mapping[str, str]
"""Join key → actor."""


@dataclass(frozen=True)
class Trained:
    """A published model: the bundle as a server has it, its graph and trees, and their path-dependent explanations."""

    bundle: Bundle
    onnx: bytes
    trees: Ensemble
    by_covers: PathDependentTrees


class World:
    """The feature store of a home with its actors written, and the model of them published there."""

    def __init__(self, home: Home) -> None:
        home.feature_repo.mkdir(parents=True)
        (home.feature_repo / "feature_store.yaml").write_text(yaml.safe_dump(_settings(home.registry)))
        self._store = open_feature_store(home.feature_repo, home.registry, home.redis_url())
        self._store.apply(_objects(home.root))
        client = redis.Redis.from_url(home.redis_url())
        self._writer = RowWriter(client)
        self._reader = FeatureReaderSync(client, self._store)
        self.plan: ReadPlan = self._reader.plan(SERVICE)
        self._stored = {kind: draw_actors(ACTORS, seed=i) for i, kind in enumerate(KINDS)}
        self._windows: dict[str, list[Row]] = {}
        self._write_stored()
        self.fill_tiles()
        self.model = self._publish(home)

    def close(self) -> None:
        """Give the connections back."""
        self._reader.close()

    def actors(self, place: int) -> Key:
        """The actors of each kind at one place."""
        return {key: self._stored[kind].ids[place] for kind, key in KINDS.items()}

    def fill_tiles(self) -> None:
        """Write the windowed rows anew, so that every tile of every window is occupied now."""
        now_ms = _now_ms()
        for seed, kind in enumerate(KINDS):
            view, encoder = self._row(f"{kind}_traffic")
            assert isinstance(view, StreamView)
            rng = np.random.default_rng(seed)
            more = rng.lognormal(4.0, 1.0, ACTORS).astype(np.int64)
            self._windows[kind] = [full_row(view.spec, now_ms, rng, more=int(count)) for count in more]
            changes = {
                encoder.key([name]): lambda stored, row=row: StreamRow(row, stored.version, {0: 1})
                for name, row in zip(self._stored[kind].ids, self._windows[kind], strict=True)
            }
            self._writer.update_stream_rows(view, changes)

    def values(self, places: Sequence[int]) -> Floats:
        """The features of those actors now, by our reader, float64[n, 60] in the plan's order."""
        return self._reader.read_many(self.plan, [self.actors(place) for place in places], _now_ms()).values

    def plain_values(self, place: int, as_of_ms: int) -> Floats:
        """The same by the plain kernel from the rows as they were made, without Redis: float64[60]."""
        found: dict[str, float] = {}
        for kind in KINDS:
            view, _ = self._row(f"{kind}_traffic")
            assert isinstance(view, StreamView)
            windows = read_windows(view.spec, self._windows[kind][place], as_of_ms).values
            found |= {f"{view.name}:{a.feature}": v for a, v in zip(view.spec.aggregations, windows, strict=True)}
            stored = self._stored[kind].values[place]
            found |= {f"{kind}_profile:{_stored_name(kind, i)}": stored[i] for i in range(STORED)}
        return np.array([found[ref] for ref in self.plan.features])

    def requests(self, path: str, **options: object) -> list[bytes]:
        """Requests about actors drawn anew for each: any advertiser with any creator, IP and device."""
        rows = _drawn(REQUESTS, seed=21)
        bodies = [{"model": MODEL, "entities": self._mixed(row), **options} for row in rows]
        return [post(path, json.dumps(body).encode()) for body in bodies]

    def plain_requests(self, path: str) -> list[bytes]:
        """The same questions as the peers take them: nothing but the keys."""
        return [post(path, json.dumps(self._mixed(row)).encode()) for row in _drawn(REQUESTS, seed=21)]

    def batch_requests(self, path: str) -> list[bytes]:
        """Requests about a hundred times four actors each."""
        rows = _drawn(BATCH_REQUESTS * BATCH, seed=22)
        asked = [{"entities": self._mixed(row)} for row in rows]
        bodies = [
            {"model": MODEL, "explain": "top", "requests": asked[i : i + BATCH]} for i in range(0, len(asked), BATCH)
        ]
        return [post(path, json.dumps(body).encode()) for body in bodies]

    def ids(self, kind: str) -> tuple[str, ...]:
        """All actors of a kind."""
        return self._stored[kind].ids

    def features_of(self, kind: str) -> list[int]:
        """The places of a kind's features in the plan."""
        return [i for i, ref in enumerate(self.plan.features) if ref.startswith(f"{kind}_")]

    def _mixed(self, row: Sequence[int]) -> Key:
        return {key: self._stored[kind].ids[i] for (kind, key), i in zip(KINDS.items(), row, strict=True)}

    def _row(self, name: str) -> tuple[BatchView | StreamView, Any]:
        read = next(read for read in self.plan.rows if read.view.name == name)
        return read.view, read.encoder

    def _write_stored(self) -> None:
        times = np.full(ACTORS, _now_ms() - AGE_MS)
        for kind, actors in self._stored.items():
            view, encoder = self._row(f"{kind}_profile")
            assert isinstance(view, BatchView)
            arrays = [
                pa.array(actors.values[:, i], from_pandas=True).cast(pa.int64() if is_integer(i) else pa.float64())
                for i in range(STORED)
            ]
            rows = encode_batch_columns(view, arrays, times, np.zeros_like(times))
            self._writer.write_sealed_rows(view, encoder.keys([(name,) for name in actors.ids]), rows)

    def _publish(self, home: Home) -> Trained:
        """Train on mixed actors, publish for the feature service, make it the champion, and load what was published."""
        each = self.values(range(ACTORS))
        rows = np.empty((TRAINING_ROWS, each.shape[1]))
        mixed = np.array(_drawn(TRAINING_ROWS, seed=23))
        for column, kind in enumerate(KINDS):
            places = self.features_of(kind)
            rows[:, places] = each[mixed[:, column]][:, places]
        onnx = export_lightgbm(_train(rows))
        card = ModelCard(
            model_name=MODEL,
            label="drawn",
            service=Service(name=SERVICE, fingerprint=self.plan.fingerprint),
            features=tuple(Feature(ref=ref, code=reason_code(ref)) for ref in self.plan.features),
            thresholds=Thresholds(review=0.5, block=0.9),
            calibration="none",
        )
        draft = BundleDraft(card, onnx, rows[:BACKGROUND], "drawn", rows[-GOLDEN_ROWS:])
        models = home.model_store()
        version = models.publish(draft)
        models.set_alias(MODEL, CHAMPION, version, at_ms=_now_ms(), by="bench")
        trees = read_trees(read_graph(onnx))
        by_covers = PathDependentTrees(path_dependent_tables(trees), "covers")
        return Trained(models.load(MODEL, version), onnx, trees, by_covers)


def feature_names(plan: ReadPlan) -> list[str]:
    """The plan's features without their views."""
    return [ref.split(":")[1] for ref in plan.features]


def entities() -> dict[str, Entity]:
    """The four kinds as Feast's entities."""
    return {kind: Entity(name=kind, join_keys=[key], value_type=ValueType.STRING) for kind, key in KINDS.items()}


def field_of(plan: ReadPlan, place: int) -> Field:
    """A feature of the plan as a plain Feast field."""
    return Field(name=feature_names(plan)[place], dtype=Int64 if plan.kinds[place] == "INT64" else Float64)


def _settings(registry: Path) -> dict[str, object]:
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": str(registry),
        "entity_key_serialization_version": 3,
        "online_store": {"type": "materialize.online.feast_store.PackedRedisOnlineStore"},
        "offline_store": {"type": "file"},
    }


def _objects(directory: Path) -> list[Any]:
    kinds = entities()
    profiles = [_profile(directory, entity) for entity in kinds.values()]
    traffic = [_traffic(directory, entity) for entity in kinds.values()]
    return [*kinds.values(), *profiles, *traffic, FeatureService(name=SERVICE, features=[*profiles, *traffic])]


def _profile(directory: Path, entity: Entity) -> FeatureView:
    name = f"{entity.name}_profile"
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[
            Field(name=_stored_name(entity.name, i), dtype=Int64 if is_integer(i) else Float64) for i in range(STORED)
        ],
        source=FileSource(name=name, path=str(directory / f"{name}.parquet"), timestamp_field="event_time"),
        ttl=timedelta(days=30),
    )


def _traffic(directory: Path, entity: Entity) -> StreamFeatureView:
    name = f"{entity.name}_traffic"
    history = FileSource(name=f"{name}_history", path=str(directory / f"{name}.parquet"), timestamp_field="event_time")
    aggregations = [
        Aggregation(
            column="amount",
            function=function,
            time_window=window,
            name=f"{entity.name}_{function}_{window.total_seconds():g}",
        )
        for window in WINDOWS
        for function in FUNCTIONS[entity.name]
    ]
    return StreamFeatureView(
        name=name,
        entities=[entity],
        schema=[
            Field(name=a.resolved_name(a.time_window), dtype=Int64 if a.function == "count" else Float64)
            for a in aggregations
        ],
        source=KafkaSource(
            name=f"{name}_events",
            kafka_bootstrap_servers="",
            topic="ad_events",
            timestamp_field="event_time",
            message_format=JsonFormat(schema_json=f"{entity.join_key} string, amount double"),
            batch_source=history,
        ),
        aggregations=aggregations,
        timestamp_field="event_time",
        ttl=timedelta(days=8),
    )


def _stored_name(kind: str, feature: int) -> str:
    return f"{kind}_p{feature}"


def _drawn(count: int, seed: int) -> list[list[int]]:
    """The place of an actor of each kind, `count` times."""
    return np.random.default_rng(seed).integers(0, ACTORS, (count, len(KINDS))).tolist()


def _train(rows: Floats) -> lightgbm.Booster:
    """A model of labels that depend on all features, not linearly; 1 in 5 is 1."""
    rng = np.random.default_rng(24)
    known = np.log1p(np.abs(np.nan_to_num(rows)))
    known = (known - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-9)
    risk = known @ rng.normal(size=rows.shape[1]) / 4 + np.sin(2 * known[:, 0]) + (known[:, 9] > 1) * (known[:, 20] < 0)
    labels = risk + rng.normal(size=len(rows)) > np.quantile(risk, 0.8)
    return train_gbdt(rows, labels.astype(np.float64))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
