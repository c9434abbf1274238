"""Where a local installation keeps what it makes, and how to reach what runs: resolved once, from the environment.

<home>/data/        history in Parquet, labels, profiles       ACTOR_RISK_DATA
<home>/registry.db  the Feast registry; beside it its lock, and what was applied: applies.jsonl, applies/
<home>/models/      bundles                                    ACTOR_RISK_MODELS: a directory, or s3://…, gs://…
<home>/model-cache/ copies of bundles that are kept elsewhere
<home>/reports/     what training found out about each model, HTML and JSON
<home>/valkey/      the embedded server                        REDIS_URL instead
<home>/logs/        output of what runs in the background
<home>/backfill/    manifests and reports of backfills
<home>/decisions/   the decision log                           ACTOR_RISK_DECISIONS
<home>/stream/      what stream commands and their workers say of themselves
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actor_risk.errors import ActorRiskError
from actor_risk.local import Valkey
from materialize.stream import EventLog, log_settings, open_event_log

if TYPE_CHECKING:
    from feast import FeatureStore

    from models.store import ModelStore

DECISIONS = "decisions"
"""The decision log's folder below the home, unless it is elsewhere."""


@dataclass(frozen=True)
class Home:
    """The paths and addresses of one local installation. `given_redis_url`: from REDIS_URL, None for the embedded.

    `models`: a directory, or an address that fsspec knows.
    """

    root: Path
    feature_repo: Path
    data: Path
    decisions: Path
    models: Path | str
    given_redis_url: str | None
    kafka_servers: str | None

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> Home:
        """The home that ACTOR_RISK_HOME and its fellows name; `.local` in the working directory by default."""
        root = Path(environ.get("ACTOR_RISK_HOME") or ".local").absolute()
        return Home(
            root=root,
            feature_repo=Path(environ.get("ACTOR_RISK_FEATURE_REPO") or "feature_repo").absolute(),
            data=Path(environ.get("ACTOR_RISK_DATA") or root / "data").absolute(),
            decisions=Path(environ.get("ACTOR_RISK_DECISIONS") or root / DECISIONS).absolute(),
            models=_place(environ.get("ACTOR_RISK_MODELS") or str(root / "models")),
            given_redis_url=environ.get("REDIS_URL") or None,
            kafka_servers=environ.get("KAFKA_BOOTSTRAP_SERVERS") or None,
        )

    @property
    def registry(self) -> Path:
        return self.root / "registry.db"

    @property
    def registry_lock(self) -> Path:
        """Held by whoever writes the registry: `apply`, and backfills that enter their progress."""
        return self.registry.with_name(f"{self.registry.name}.lock")

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def backfill(self) -> Path:
        return self.root / "backfill"

    @property
    def stream(self) -> Path:
        return self.root / "stream"

    def valkey(self, *, detached: bool = False) -> Valkey:
        """The embedded server of this home, not started."""
        return Valkey(self.root / "valkey", append_only=True, detached=detached)

    def model_store(self) -> ModelStore:
        """The model store of this home."""
        from models.store import ModelStore  # brings ONNX Runtime, whose import takes a while

        return ModelStore(self.models, self.root / "model-cache")

    def redis_url(self) -> str:
        """The Redis in use. Raises ActorRiskError when none was given and the embedded one does not run."""
        if self.given_redis_url is not None:
            return self.given_redis_url
        found = self.valkey().running()
        if found is None:
            raise ActorRiskError("no Redis: start the embedded one with `actor-risk up`, or set REDIS_URL")
        return f"redis://127.0.0.1:{found.port}/0"

    def event_log(self) -> EventLog:
        """The event log in use: Kafka if KAFKA_BOOTSTRAP_SERVERS is set, else streams on the same Redis."""
        return open_event_log(log_settings(self.redis_url(), self.kafka_servers))

    def feature_store(self) -> FeatureStore:
        """The Feast store of the repository, with this home's registry and Redis."""
        from materialize.definitions import open_feature_store  # brings Feast, whose import takes seconds

        return open_feature_store(self.feature_repo, self.registry, self.redis_url())

    def environment(self) -> dict[str, str]:
        """The variables with which another process finds the same home."""
        found = {
            "ACTOR_RISK_HOME": str(self.root),
            "ACTOR_RISK_FEATURE_REPO": str(self.feature_repo),
            "ACTOR_RISK_DATA": str(self.data),
            "ACTOR_RISK_DECISIONS": str(self.decisions),
            "ACTOR_RISK_MODELS": str(self.models),
            "REDIS_URL": self.redis_url(),
        }
        return found if self.kafka_servers is None else {**found, "KAFKA_BOOTSTRAP_SERVERS": self.kafka_servers}


def _place(text: str) -> Path | str:
    """An address as it is, a path from the working directory on."""
    return text if "://" in text else Path(text).absolute()
