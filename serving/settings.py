"""The server's settings, read from the environment once, at the composition root."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from serving.errors import SettingsError

PREFIX = "ACTOR_RISK_"
LOG_FORMATS = ("text", "json")

_DIGITS_MAX = 9
_SHARE = re.compile(r"[01](\.[0-9]{1,9})?|\.[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one server needs to know.

    feature_repo    folder with feature_store.yaml            ACTOR_RISK_FEATURE_REPO, default feature_repo
    registry        Feast registry file                       ACTOR_RISK_REGISTRY, default <home>/registry.db
    models          the model store: a directory, or an address such as s3://bucket/models
                                                              ACTOR_RISK_MODELS, default <home>/models
    model_cache     copies of bundles that are kept elsewhere ACTOR_RISK_MODEL_CACHE, default <home>/model-cache
    redis_url       online store, and stream unless Kafka is  REDIS_URL, default what feature_store.yaml says
    kafka_servers   stream, when there is one                 KAFKA_BOOTSTRAP_SERVERS
    decisions       folder of the decision log                ACTOR_RISK_DECISIONS, default <home>/decisions
    decision_log_rate
                    share of decisions that are logged, 0 to 1, chosen by a hash of the decision's id
                                                              ACTOR_RISK_DECISION_LOG_RATE, default 1
    decision_log_mib_max
                    the oldest files go when the folder holds more
                                                              ACTOR_RISK_DECISION_LOG_MIB_MAX, default 4096
    decision_log_ship
                    1: decisions go on to the event log; 0: they stay files
                                                              ACTOR_RISK_DECISION_LOG_SHIP, default 1
    decision_stream_records_max
                    what Redis keeps of them, in memory; Kafka keeps them for its time
                                                              ACTOR_RISK_DECISION_STREAM_RECORDS_MAX, default 65536
    decisions_archive
                    where `actor-risk decisions sink` writes: a directory, or an address such as s3://bucket/decisions
                                                              ACTOR_RISK_DECISIONS_ARCHIVE
    access_keys     file of API keys                          ACTOR_RISK_ACCESS_KEYS
    jwks            public keys of those who sign tokens, and what a token must say as `iss` and `aud`
                                                              ACTOR_RISK_JWKS, ACTOR_RISK_JWT_ISSUER, …_JWT_AUDIENCE
    client_rate, client_burst
                    requests a second, and at once, that one client may send to one replica
                                                              ACTOR_RISK_CLIENT_RATE, …_CLIENT_BURST, default 1000
    traces          1: OpenTelemetry traces, needs the extra otel. OTEL_… says where to and how many
                                                              ACTOR_RISK_TRACES, default 1 where an endpoint is set:
                                                              OTEL_EXPORTER_OTLP_ENDPOINT, …_OTLP_TRACES_ENDPOINT
    log_format      json: lines on standard error, each with the trace id of its request
                                                              ACTOR_RISK_LOG_FORMAT, default text
    sched_batch     1: replicas and HAProxy wait for a processor instead of interrupting who has it; 0: as Linux does by
                    default, for nodes where jobs run besides; HAProxy must see it too: set it before Ray starts
                                                              ACTOR_RISK_SCHED_BATCH, default 1
    body_bytes_max, redis_timeout_ms, publish_timeout_ms, ingest_timeout_ms, registry_poll_ms, rollout_poll_ms
                                                              ACTOR_RISK_… in upper case

    <home> is ACTOR_RISK_HOME, default .local. Relative paths start at the working directory. The HTTP port belongs to
    Ray Serve: it stands in ray_config.yaml. Without access_keys and jwks only this machine is answered.
    """

    feature_repo: Path
    registry: Path
    models: Path | str
    model_cache: Path
    redis_url: str | None
    kafka_servers: str | None
    decisions: Path
    decision_log_rate: float
    decision_log_mib_max: int
    decision_log_ship: bool
    decision_stream_records_max: int
    decisions_archive: Path | str | None
    access_keys: Path | None
    jwks: Path | None
    jwt_issuer: str | None
    jwt_audience: str | None
    client_rate: int
    client_burst: int
    traces: bool
    log_format: str
    sched_batch: bool
    body_bytes_max: int
    redis_timeout_ms: int
    publish_timeout_ms: int
    ingest_timeout_ms: int
    registry_poll_ms: int
    rollout_poll_ms: int

    @property
    def has_access(self) -> bool:
        """Whether it is said who may ask."""
        return self.access_keys is not None or self.jwks is not None

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> Settings:
        """The settings in these variables. Raises SettingsError naming the variable that is wrong."""
        home = Path(environ.get(f"{PREFIX}HOME") or ".local")
        archive = environ.get(f"{PREFIX}DECISIONS_ARCHIVE")
        return Settings(
            feature_repo=Path(environ.get(f"{PREFIX}FEATURE_REPO") or "feature_repo").absolute(),
            registry=Path(environ.get(f"{PREFIX}REGISTRY") or home / "registry.db").absolute(),
            models=_place(environ.get(f"{PREFIX}MODELS") or str(home / "models")),
            model_cache=Path(environ.get(f"{PREFIX}MODEL_CACHE") or home / "model-cache").absolute(),
            redis_url=_redis_url(environ.get("REDIS_URL") or None),
            kafka_servers=environ.get("KAFKA_BOOTSTRAP_SERVERS") or None,
            decisions=Path(environ.get(f"{PREFIX}DECISIONS") or home / "decisions").absolute(),
            decision_log_rate=_share(environ, "DECISION_LOG_RATE", 1.0),
            decision_log_mib_max=_positive(environ, "DECISION_LOG_MIB_MAX", 4096),
            decision_log_ship=_switch(environ, "DECISION_LOG_SHIP"),
            decision_stream_records_max=_positive(environ, "DECISION_STREAM_RECORDS_MAX", 65_536),
            decisions_archive=_place(archive) if archive else None,
            access_keys=_file(environ, "ACCESS_KEYS"),
            jwks=_file(environ, "JWKS"),
            jwt_issuer=environ.get(f"{PREFIX}JWT_ISSUER") or None,
            jwt_audience=environ.get(f"{PREFIX}JWT_AUDIENCE") or None,
            client_rate=_positive(environ, "CLIENT_RATE", 1_000),
            client_burst=_positive(environ, "CLIENT_BURST", 1_000),
            traces=_switch(environ, "TRACES", default=_has_trace_endpoint(environ)),
            log_format=_log_format(environ),
            sched_batch=_switch(environ, "SCHED_BATCH"),
            body_bytes_max=_positive(environ, "BODY_BYTES_MAX", 1 << 20),
            redis_timeout_ms=_positive(environ, "REDIS_TIMEOUT_MS", 500),
            publish_timeout_ms=_positive(environ, "PUBLISH_TIMEOUT_MS", 250),
            ingest_timeout_ms=_positive(environ, "INGEST_TIMEOUT_MS", 2_000),
            registry_poll_ms=_positive(environ, "REGISTRY_POLL_MS", 10_000),
            rollout_poll_ms=_positive(environ, "ROLLOUT_POLL_MS", 1_000),
        )


def _file(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(PREFIX + name)
    return Path(text).absolute() if text else None


def _place(text: str) -> Path | str:
    """An address as it is, a path from the working directory on."""
    return text if "://" in text else Path(text).absolute()


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(PREFIX + name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and int(text)):
        raise SettingsError(f"{PREFIX}{name} must be a whole number from 1 to 999999999, not {text[:20]!r}")
    return int(text)


def _has_trace_endpoint(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def _log_format(environ: Mapping[str, str]) -> str:
    text = environ.get(f"{PREFIX}LOG_FORMAT") or "text"
    if text not in LOG_FORMATS:
        raise SettingsError(f"{PREFIX}LOG_FORMAT must be one of {', '.join(LOG_FORMATS)}, not {text[:20]!r}")
    return text


def _switch(environ: Mapping[str, str], name: str, *, default: bool = True) -> bool:
    """What the variable says, 0 or 1."""
    text = environ.get(PREFIX + name) or str(int(default))
    if text not in ("0", "1"):
        raise SettingsError(f"{PREFIX}{name} must be 0 or 1, not {text[:20]!r}")
    return text == "1"


def _share(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(PREFIX + name) or str(default)
    if not (_SHARE.fullmatch(text) and float(text) <= 1):
        raise SettingsError(f"{PREFIX}{name} must be a share from 0 to 1, such as 0.05, not {text[:20]!r}")
    return float(text)


def _redis_url(url: str | None) -> str | None:
    if url is not None and urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise SettingsError(
            "REDIS_URL must begin with redis://, rediss:// or unix://, such as redis://127.0.0.1:6379/0"
        )
    return url
