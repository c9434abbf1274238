"""The one place that makes Redis clients, and that tells which of their errors pass by themselves.

A dropped connection is made anew and the call sent once more, at once; a call that timed out is not, so that no call
takes much more than its time-out. Repeating is safe for all that this package sends: a read changes nothing, a row of a
batch view is written when it is not older (the same row twice is the same row), and a compare-and-set that was applied
before its answer was lost fails at the second try, whereupon the writer reads the row and finds its change in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.retry
import redis.cluster
import redis.sentinel
from feast import FeatureStore
from redis import exceptions as failures
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from materialize.online._errors import (
    ConnectionSettingsError,
    OnlineStoreError,
    OnlineStoreRefusedError,
    OnlineStoreUnavailableError,
)
from materialize.personal import told_by_redis

DEFAULT_URL = "redis://127.0.0.1:6379/0"
DEFAULT_PORTS = {"sentinels": 26379, "startup_nodes": 6379}

_FROM_REDIS = (failures.RedisError, failures.RedisClusterException)
_DROPPED = (failures.ConnectionError,)
_PASSING = (
    failures.ConnectionError,
    failures.TimeoutError,
    failures.InvalidResponse,
    failures.ReadOnlyError,
    failures.OutOfMemoryError,
    failures.ClusterError,
    failures.AskError,
    failures.TryAgainError,
    failures.NoScriptError,
    failures.RedisClusterException,
)
_LASTING = (
    failures.AuthenticationError,
    failures.AuthorizationError,
    failures.ClusterCrossSlotError,
    failures.CrossSlotTransactionError,
)
_UVLOOP_CLOSED = "the handler is closed"
_PASSING_WORDS = re.compile(
    r"(?:^|caused error: |: ?-)(?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY) "
)
"""Error codes that redis-py has no class for, or that stand inside the error of a script (Redis 6)."""


@dataclass(frozen=True)
class RedisSettings:
    """How to reach Redis. Names and meanings are redis-py's; what the URL says goes before what stands beside it."""

    url: str = field(default=DEFAULT_URL, repr=False)
    """`redis://`, `rediss://` (TLS) or `unix://`. With Sentinel only its user, password and database count."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    socket_timeout: float = 5.0
    """Seconds that one answer may take."""
    socket_connect_timeout: float | None = None
    """Seconds that connecting may take; `socket_timeout` when None."""
    ssl: bool = False
    ssl_ca_certs: str | None = None
    """File of the authorities to trust, PEM; the system's when None."""
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    cluster: bool = False
    """Whether the URL names a node of a Redis Cluster."""
    startup_nodes: Sequence[str] = ()
    """Further nodes of the cluster to ask for its shape, as `host:port`."""
    sentinels: Sequence[str] = ()
    """The Sentinel processes, as `host:port`; they are asked where the master is."""
    service_name: str | None = None
    """The name that the Sentinels watch the master under."""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    max_connections: int | None = None
    """Connections of one client, of a cluster for each node; a call beyond them fails. No bound when None."""
    health_check_interval: int = 0
    """Seconds of idleness after which a connection is pinged before it is used; 0 for never."""
    retries: int = 1
    """How often a call on a dropped connection is sent again."""


def redis_settings(store: FeatureStore) -> RedisSettings:
    """How the store's `feature_store.yaml` says to reach Redis.

    Raises ConnectionSettingsError when its online store is another than ours.
    """
    settings = getattr(store.config.online_store, "settings", None)
    if settings is None:
        raise ConnectionSettingsError(
            f"the online store of feature_store.yaml is {store.config.online_store.type!r}: "
            "set materialize.online.feast_store.PackedRedisOnlineStore"
        )
    found: RedisSettings = settings()
    return found


def connect(settings: RedisSettings) -> redis.Redis:
    """A blocking client, to be closed by the caller. A cluster's client has the same commands, so it passes for one.

    Connects at the first call; only a cluster's client asks for the cluster's shape here.
    Raises ConnectionSettingsError, OnlineStoreUnavailableError or OnlineStoreRefusedError.
    """
    options = _options(settings)
    retry = Retry(NoBackoff(), settings.retries, _DROPPED)
    with unavailable_if_redis_fails(), _settings_named():
        if settings.sentinels:
            sentinel = redis.sentinel.Sentinel(
                _addresses("sentinels", settings.sentinels),
                sentinel_kwargs={**_sentinel_options(settings, options), "retry": retry},
                retry=retry,
                **options,
            )
            return cast(redis.Redis, sentinel.master_for(str(settings.service_name)))
        if settings.cluster:
            nodes = [redis.cluster.ClusterNode(*address) for address in _cluster_nodes(settings, options)]
            return cast(redis.Redis, redis.RedisCluster(startup_nodes=nodes, retry=retry, **options))
        return redis.Redis(retry=retry, **options)


def connect_async(settings: RedisSettings) -> redis.asyncio.Redis:
    """The same for asyncio. The client belongs to the event loop of its first call; nothing is sent before that.

    Raises ConnectionSettingsError.
    """
    options = _options(settings)
    retry = redis.asyncio.retry.Retry(NoBackoff(), settings.retries, _DROPPED)
    with _settings_named():
        if settings.sentinels:
            sentinel = redis.asyncio.Sentinel(
                _addresses("sentinels", settings.sentinels),
                sentinel_kwargs={**_sentinel_options(settings, options), "retry": retry},
                retry=retry,
                **options,
            )
            return cast(redis.asyncio.Redis, sentinel.master_for(str(settings.service_name)))
        if settings.cluster:
            nodes = [redis.asyncio.cluster.ClusterNode(*address) for address in _cluster_nodes(settings, options)]
            return cast(redis.asyncio.Redis, redis.asyncio.RedisCluster(startup_nodes=nodes, retry=retry, **options))
        return redis.asyncio.Redis(retry=retry, **options)


@contextmanager
def closed_is_lost() -> Iterator[None]:
    """Turns what uvloop says of a connection that was reset before anything was sent, a RuntimeError that redis-py
    passes on, into redis-py's ConnectionError."""
    try:
        yield
    except RuntimeError as error:
        if _UVLOOP_CLOSED not in str(error):
            raise
        raise failures.ConnectionError("the connection was lost") from error


@contextmanager
def unavailable_if_redis_fails() -> Iterator[None]:
    """Turns redis-py's errors into OnlineStoreUnavailableError, for what passes (Redis away, slow, loading, read-only,
    full, failing over), or OnlineStoreRefusedError, for what stays until somebody changes something."""
    try:
        with closed_is_lost():
            yield
    except _FROM_REDIS as error:
        raise _translated(error) from error


@contextmanager
def no_answer_is_unavailable() -> Iterator[None]:
    """Whoever answers a request cannot do more about a refusal than about silence: both are one error here."""
    try:
        with unavailable_if_redis_fails():
            yield
    except OnlineStoreRefusedError as error:
        raise OnlineStoreUnavailableError(str(error)) from error


def _translated(error: Exception) -> OnlineStoreError:
    reason = _reason(error)
    told = ": ".join(told_by_redis(one) for one in dict.fromkeys((error, reason)))
    if _passes(reason):
        return OnlineStoreUnavailableError(f"Redis did not do what was asked: {told}")
    return OnlineStoreRefusedError(
        f"Redis refused what was asked, and will again: {told}; look at the user's password and permissions, "
        "and at what else writes keys of this project"
    )


def _reason(error: Exception) -> Exception:
    """What a node said, when that is why redis-py gave up on the cluster."""
    behind = error.__cause__ or error.__context__
    if isinstance(error, failures.RedisClusterException) and isinstance(behind, _FROM_REDIS):
        return _reason(behind)
    return error


def _passes(error: Exception) -> bool:
    if isinstance(error, _LASTING):
        return False
    return isinstance(error, _PASSING) or _PASSING_WORDS.search(str(error)) is not None


@contextmanager
def _settings_named() -> Iterator[None]:
    """A client's constructor says TypeError or ValueError for an option in the URL that it does not know."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConnectionSettingsError(f"these settings make no Redis client: {error}") from error


def _options(settings: RedisSettings) -> dict[str, Any]:
    """Keyword arguments that all clients take, without `host`, `port` and `db` where these have no meaning."""
    _check(settings)
    try:
        told = dict(parse_url(settings.url))
    except ValueError as error:
        raise ConnectionSettingsError(f"the URL of Redis is none: {error}") from error
    if "path" in told:
        told["unix_socket_path"] = told.pop("path")
    if told.pop("connection_class", None) is redis.SSLConnection:
        told["ssl"] = True
    told = {**_own_options(settings), **told}
    if settings.sentinels:
        return {name: value for name, value in told.items() if name not in ("host", "port", "unix_socket_path")}
    if settings.cluster and told.pop("db", 0) != 0:
        raise ConnectionSettingsError("a Redis Cluster has only database 0: leave the number out of the URL")
    return told


def _own_options(settings: RedisSettings) -> dict[str, Any]:
    connect_timeout = settings.socket_connect_timeout
    always = {
        "socket_timeout": settings.socket_timeout,
        "socket_connect_timeout": settings.socket_timeout if connect_timeout is None else connect_timeout,
        "health_check_interval": settings.health_check_interval,
    }
    when_given = {
        "username": settings.username,
        "password": settings.password,
        "max_connections": settings.max_connections,
    }
    return {**always, **{name: value for name, value in when_given.items() if value is not None}, **_tls(settings)}


def _tls(settings: RedisSettings) -> dict[str, Any]:
    if not (settings.ssl or settings.url.startswith("rediss://")):
        return {}
    files = {
        "ssl_ca_certs": settings.ssl_ca_certs,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
    }
    given = {name: value for name, value in files.items() if value is not None}
    return {"ssl": True, "ssl_check_hostname": settings.ssl_check_hostname, **given}


def _sentinel_options(settings: RedisSettings, options: dict[str, Any]) -> dict[str, Any]:
    """How to reach a Sentinel: as the master, but with a user and password of its own, and no database."""
    shared = {k: v for k, v in options.items() if k.startswith(("socket_", "ssl"))}
    own = {"username": settings.sentinel_username, "password": settings.sentinel_password}
    return {**shared, **{name: value for name, value in own.items() if value is not None}}


def _check(settings: RedisSettings) -> None:
    if settings.cluster and settings.sentinels:
        raise ConnectionSettingsError("`cluster` and `sentinels` exclude each other: a cluster fails over by itself")
    if settings.sentinels and not settings.service_name:
        raise ConnectionSettingsError("`sentinels` need a `service_name`: what they call the master they watch")
    if settings.service_name and not settings.sentinels:
        raise ConnectionSettingsError("`service_name` needs `sentinels`: who to ask where the master is")
    if settings.startup_nodes and not settings.cluster:
        raise ConnectionSettingsError("`startup_nodes` are for a Redis Cluster: set `cluster: true`")


def _cluster_nodes(settings: RedisSettings, options: dict[str, Any]) -> list[tuple[str, int]]:
    """The addresses to ask for the cluster's shape; takes host and port out of the options."""
    if "unix_socket_path" in options:
        raise ConnectionSettingsError("a Redis Cluster is not reached through a Unix socket: give a redis:// URL")
    own = (str(options.pop("host", "127.0.0.1")), int(options.pop("port", 6379)))
    return [own, *_addresses("startup_nodes", settings.startup_nodes)]


def _addresses(setting: str, texts: Sequence[str]) -> list[tuple[str, int]]:
    found = []
    for text in texts:
        host, colon, port = text.rpartition(":")
        if colon and not port.isdigit():
            raise ConnectionSettingsError(f"`{setting}` are written host:port, not {text!r}")
        found.append((host.strip("[]"), int(port)) if colon else (port, DEFAULT_PORTS[setting]))
    return found
