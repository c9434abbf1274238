"""The online store on every kind of Redis: one server, a cluster, Sentinel, TLS, users with few permissions.

All servers are real, started here from the Valkey binary on free ports. That binary speaks no TLS, so a terminator in
front of one does; the client side is the real one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from feast import types
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from redis import exceptions as failures

from actor_risk.local import Valkey, wait_until
from actor_risk.local.processes import free_port
from actor_risk.local.server import LocalServer
from actor_risk.local.valkey import server_binary
from materialize.kernel import empty_row, fold_events
from materialize.online import (
    BatchRow,
    ConnectionSettingsError,
    OnlineStoreError,
    OnlineStoreRefusedError,
    OnlineStoreUnavailableError,
    RedisSettings,
    RowWriter,
    StreamRow,
    connect,
    connect_async,
    decode_batch_row,
    decode_stream_row,
    unavailable_if_redis_fails,
)
from materialize.online._fetch import fetch_async
from materialize.online.feast_store import PackedRedisOnlineStore, PackedRedisOnlineStoreConfig
from tests.docs.pages import read_page
from tests.support.cluster import cluster as started_cluster
from tests.support.small_store import at, file_source, profiles, view_over
from tests.support.views import NOW_MS, batch_view, block, key, stream_view

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "connect-to-redis.md"
PROJECT = "shop"
NODES = 3
FAILOVER_S = 30.0
ENTITIES = [f"10.0.{i // 250}.{i % 250}" for i in range(700)]
STORE_TYPE = "materialize.online.feast_store.PackedRedisOnlineStore"
Options = dict[str, Any]


class Sentinel(LocalServer):
    """A Sentinel that alone decides; it watches one master under the name `mymaster`."""

    name = "Sentinel"
    ready_timeout_s = 15.0
    config_name = "sentinel.conf"

    def __init__(self, directory: Path, master_port: int) -> None:
        super().__init__(directory)
        self.master_port = master_port

    def _prepare(self, port: int) -> list[str]:
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f'dir "{self.data_path}"',
            "set-proc-title no",
            f"sentinel monitor mymaster 127.0.0.1 {self.master_port} 1",
            "sentinel down-after-milliseconds mymaster 2000",
            "sentinel failover-timeout mymaster 3000",
        ]
        self.config_path.write_text("\n".join([*lines, ""]))
        return [str(server_binary()), str(self.config_path), "--sentinel"]

    def _answers(self, port: int) -> bool:
        with redis.Redis(port=port, socket_timeout=2.0) as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server of this module's own, whose users and clients may be tampered with."""
    with Valkey(tmp_path_factory.mktemp("own")) as started:
        yield started


@pytest.fixture(autouse=True)
def _without_rows(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        own: Valkey = request.getfixturevalue("server")
        with redis.Redis.from_url(own.url) as client:
            client.flushall()
            client.script_flush()  # a writer that finds its script need not be let load it


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Valkey]]:
    """Three masters that share the slots."""
    with started_cluster(tmp_path_factory.mktemp("cluster"), primaries=NODES) as made:
        yield made.servers


# ---- what every kind must do ----


def rows_of_both_views_survive_their_writers(settings: RedisSettings) -> None:
    """Batch rows and stream rows, more than one pipeline of them, written by one client and read by another."""
    batch, stream = batch_view(["INT64"]), stream_view()
    with closing(connect(settings)) as client:
        writer = RowWriter(client)
        keys = [key(PROJECT, batch, entity) for entity in ENTITIES]
        newer = [(k, BatchRow(NOW_MS, 0, (i,))) for i, k in enumerate(keys)]
        older = [(k, BatchRow(NOW_MS - 1, 0, (-1,))) for k in keys]
        assert [writer.write_batch_rows(batch, rows) for rows in (newer, older)] == [len(keys), 0]
        changes = {key(PROJECT, stream, e): _one_event for e in ENTITIES}
        writer.update_stream_rows(stream, changes)
        written = writer.counts.written
        writer.update_stream_rows(stream, changes)
        assert writer.counts.written == written

    async def read() -> list[bytes]:
        reader = connect_async(settings)
        try:
            return [row or b"" for row in await fetch_async(reader, [*keys, *changes])]
        finally:
            await reader.aclose()

    rows = asyncio.run(read())
    assert [decode_batch_row(batch, row).values for row in rows[: len(keys)]] == [(i,) for i in range(len(keys))]
    assert all(decode_stream_row(stream.spec, row).applied == {0: 7} for row in rows[len(keys) :])


def _one_event(stored: StreamRow) -> StreamRow | None:
    """A change that is safe to repeat, as the worker's are: it finds in the row that it has been made."""
    if stored.applied.get(0, -1) >= 7:
        return None
    view = stream_view()
    state, _ = fold_events(view.spec, stored.state or empty_row(view.spec), block([("e1", NOW_MS, 2.0, "a")]))
    return StreamRow(state, stored.version, {0: 7})


def feasts_calls_read_write_and_delete(options: Options, directory: Path) -> None:
    """The plug-in's calls, blocking and not; deleting a view leaves no row of it on any node, and all others."""
    with _plug_in(options, directory) as (store, config, view):
        other = view.with_name("profile")
        other.name = "other"
        rows = [(_entity(e), {"f": Value(int64_val=i)}, at(NOW_MS), None) for i, e in enumerate(ENTITIES)]
        store.online_write_batch(config, view, rows[:350], None)
        store.online_write_batch(config, other, rows[:10], None)
        asked = [_entity(e) for e in (*ENTITIES, "nobody")]

        async def use() -> list[Any]:
            await store.online_write_batch_async(config, view, rows[350:], None)
            found = await store.online_read_async(config, view, asked)
            await store.close()
            return found

        found = asyncio.run(use())
        assert found == store.online_read(config, view, asked)
        assert [None if values is None else values["f"].int64_val for _, values in found] == [*range(700), None]
        store.update(config, [view], [other], [], [], partial=False)
        assert {values for _, values in store.online_read(config, view, asked)} == {None}
        assert [values is None for _, values in store.online_read(config, other, asked[:11])] == [False] * 10 + [True]
        store.update(config, [other], [], [], [], partial=False)


@contextmanager
def _plug_in(options: Options, directory: Path) -> Iterator[tuple[PackedRedisOnlineStore, RepoConfig, Any]]:
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=str(directory / "registry.db"),
        entity_key_serialization_version=3,
        online_store={"type": STORE_TYPE, **options},
    )
    view = view_over(file_source(directory, "source", profiles([])), {"ip": types.String, "f": types.Int64})
    store = PackedRedisOnlineStore()
    yield store, config, view
    asyncio.run(store.close())


def _entity(name: str) -> EntityKey:
    return EntityKey(join_keys=["ip"], entity_values=[Value(string_val=name)])


# ---- the kinds ----


def test_one_server_by_its_url(server: Valkey, tmp_path: Path) -> None:
    rows_of_both_views_survive_their_writers(RedisSettings(server.url))
    feasts_calls_read_write_and_delete({"connection_string": server.url}, tmp_path)


def test_a_cluster_holds_rows_in_the_slots_of_all_its_masters(cluster: list[Valkey], tmp_path: Path) -> None:
    settings = RedisSettings(f"redis://{cluster[1].address}", cluster=True)
    rows_of_both_views_survive_their_writers(settings)
    with closing(connect(settings)) as client:
        views = batch_view([]), stream_view()
        for entity in ENTITIES[:20]:
            assert len({client.execute_command("CLUSTER KEYSLOT", key(PROJECT, v, entity)) for v in views}) == 1
    for node in cluster:
        with redis.Redis(port=node.record.port) as client:
            assert client.dbsize() > len(ENTITIES) / NODES
            client.flushall()
    options = {"connection_string": settings.url, "cluster": True, "startup_nodes": [cluster[2].address]}
    feasts_calls_read_write_and_delete(options, tmp_path)
    assert [redis.Redis(port=node.record.port).dbsize() for node in cluster] == [0] * NODES


def test_a_cluster_is_found_when_the_node_of_the_url_is_down(cluster: list[Valkey]) -> None:
    settings = RedisSettings(f"redis://127.0.0.1:{free_port()}", cluster=True, startup_nodes=[cluster[0].address])
    with closing(connect(settings)) as client:
        assert client.get("nothing") is None


def test_a_server_that_is_no_cluster_or_does_not_let_the_user_see_it_is_refused(
    server: Valkey, cluster: list[Valkey]
) -> None:
    with pytest.raises(OnlineStoreRefusedError, match="cluster support disabled"):
        connect(RedisSettings(server.url, cluster=True))
    with _user(cluster[0], _documented_rule("features_writer")) as options:
        settings = RedisSettings(options["connection_string"], username="tester", password="change-me", cluster=True)
        with pytest.raises(OnlineStoreRefusedError, match="permission"):
            connect(settings)


def test_a_cluster_without_all_its_slots_is_unavailable(tmp_path: Path) -> None:
    config = ["cluster-enabled yes", f"cluster-port {free_port()}"]
    with Valkey(tmp_path, config=config) as lone, pytest.raises(OnlineStoreUnavailableError):
        rows_of_both_views_survive_their_writers(RedisSettings(f"redis://{lone.address}", cluster=True))


def test_behind_sentinel_reads_and_writes_go_on_after_the_master_is_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        master = stack.enter_context(Valkey(tmp_path / "master", config=["repl-diskless-sync-delay 0"]))
        config = [f"replicaof 127.0.0.1 {master.record.port}"]
        replica = stack.enter_context(Valkey(tmp_path / "replica", config=config))
        sentinel = stack.enter_context(Sentinel(tmp_path / "sentinel", master.record.port))
        asked = stack.enter_context(redis.Redis(port=sentinel.record.port, decode_responses=True))
        wait_until(lambda: _knows_a_replica(asked), FAILOVER_S, "the Sentinel knows the replica")
        options = {"sentinels": [sentinel.address], "service_name": "mymaster", "socket_timeout": 1.0}
        store, repo, view = stack.enter_context(_plug_in(options, tmp_path))
        store.online_write_batch(repo, view, [(_entity("a"), {"f": Value(int64_val=1)}, at(NOW_MS), None)], None)
        wait_until(lambda: _row_count(replica) == 1, FAILOVER_S, "the replica has the row")
        assert _values(store, repo, view) == [1]
        os.kill(master.record.pid, signal.SIGKILL)
        recovered: list[int | None] = []
        wait_until(lambda: _recovers(lambda: recovered.extend(_values(store, repo, view))), FAILOVER_S, "reads go on")
        assert recovered == [1]
        newer = [(_entity("a"), {"f": Value(int64_val=2)}, at(NOW_MS + 1), None)]
        wait_until(
            lambda: _recovers(lambda: store.online_write_batch(repo, view, newer, None)), FAILOVER_S, "writes go on"
        )
        assert _values(store, repo, view) == [2]
        assert asked.sentinel_get_master_addr_by_name("mymaster") == ("127.0.0.1", replica.record.port)
        rows_of_both_views_survive_their_writers(
            RedisSettings(sentinels=[sentinel.address], service_name="mymaster", url="redis:///0")
        )


def _row_count(server: Valkey) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.dbsize())


def _knows_a_replica(sentinel: redis.Redis) -> bool:
    return any(not found["is_disconnected"] for found in sentinel.sentinel_slaves("mymaster"))


def _values(store: PackedRedisOnlineStore, config: RepoConfig, view: Any) -> list[int | None]:
    found = store.online_read(config, view, [_entity("a")])
    return [None if values is None else values["f"].int64_val for _, values in found]


def _recovers(call: Callable[[], Any]) -> bool:
    """Whether the call is done; until then it fails with the one error that asks to try again."""
    with suppress(OnlineStoreUnavailableError):
        call()
        return True
    return False


def test_over_tls_with_a_certificate_of_the_client(server: Valkey, tmp_path: Path) -> None:
    files = _certificates(tmp_path)
    with _tls_terminator(server.record.port, files) as port:
        options: Options = {"ssl_ca_certs": files["ca"], "ssl_certfile": files["cert"], "ssl_keyfile": files["key"]}
        url = f"rediss://127.0.0.1:{port}/0"
        rows_of_both_views_survive_their_writers(RedisSettings(url, **options))
        rows_of_both_views_survive_their_writers(RedisSettings(url.replace("rediss", "redis"), ssl=True, **options))
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        feasts_calls_read_write_and_delete({"connection_string": url, **options}, tmp_path)
        for missing in (RedisSettings(url), RedisSettings(url, ssl_ca_certs=files["ca"])):
            with closing(connect(missing)) as client, pytest.raises(OnlineStoreUnavailableError):
                RowWriter(client).write_batch_rows(batch_view([]), [(b"k", BatchRow(1, 0, ()))])


def _certificates(directory: Path) -> dict[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and serves both sides."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    begin = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_bytes = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "key.pem").write_bytes(key_bytes)
    cert = str(directory / "cert.pem")
    return {"ca": cert, "cert": cert, "key": str(directory / "key.pem")}


@contextmanager
def _tls_terminator(port: int, files: dict[str, str]) -> Iterator[int]:
    """A port that speaks TLS to clients with the certificate, and plainly to the server behind it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["cert"], files["key"])
    context.load_verify_locations(files["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back_writer), copy(back_reader, writer))

    async def serve() -> None:
        stop = asyncio.Event()
        listener = await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=context)
        ready.set_result((listener.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
        await stop.wait()
        listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="tls-terminator")
    thread.start()
    tls_port, loop, stop = ready.result(10.0)
    try:
        yield tls_port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10.0)


# ---- users ----


def _documented_rule(user: str) -> list[str]:
    """The rule that the page gives a user, without the words before it."""
    line = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"ACL SETUSER {user} "))
    return line.split()[3:]


@contextmanager
def _user(server: Valkey, rule: list[str]) -> Iterator[Options]:
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL SETUSER", "tester", "reset", *rule)
        try:
            yield {"connection_string": server.url, "username": "tester", "password": "change-me"}
        finally:
            client.execute_command("ACL DELUSER", "tester")


def test_the_documented_permissions_of_a_writer_are_enough(server: Valkey, tmp_path: Path) -> None:
    with _user(server, _documented_rule("features_writer")) as options:
        settings = PackedRedisOnlineStoreConfig(**options, health_check_interval=1).settings()
        rows_of_both_views_survive_their_writers(settings)
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        feasts_calls_read_write_and_delete(options, tmp_path)


def test_the_documented_permissions_are_enough_on_a_cluster(cluster: list[Valkey], tmp_path: Path) -> None:
    extra = next(line for line in PAGE.read_text().splitlines() if line.startswith("On a Redis Cluster add"))
    rule = [*_documented_rule("features_writer"), *extra.split("`")[1].split()]
    with ExitStack() as stack:
        options, *_ = [stack.enter_context(_user(node, rule)) for node in cluster]
        feasts_calls_read_write_and_delete({**options, "cluster": True}, tmp_path)


@pytest.mark.parametrize("command", ["+mget", "+getrange", "+set", "+evalsha", "+script|load", "+scan", "+unlink"])
def test_without_any_one_of_the_documented_commands_something_is_refused(
    server: Valkey, tmp_path: Path, command: str
) -> None:
    rule = [word for word in _documented_rule("features_writer") if word != command]
    with _user(server, rule) as options, pytest.raises(OnlineStoreRefusedError, match="permission"):
        feasts_calls_read_write_and_delete(options, tmp_path)


def test_the_documented_reader_reads_and_can_do_nothing_else(server: Valkey, tmp_path: Path) -> None:
    with _plug_in({"connection_string": server.url}, tmp_path) as (store, config, view):
        rows = [(_entity("a"), {"f": Value(int64_val=5)}, at(NOW_MS), None)]
        store.online_write_batch(config, view, rows, None)
    with (
        _user(server, _documented_rule("features_reader")) as options,
        _plug_in(options, tmp_path) as (store, config, view),
    ):
        assert _values(store, config, view) == [5]
        for refused in (
            lambda: store.online_write_batch(config, view, rows, None),
            lambda: store.update(config, [view], [], [], [], partial=False),
        ):
            with pytest.raises(OnlineStoreRefusedError, match="permission"):
                refused()


def test_a_user_of_another_project_is_refused(server: Valkey, tmp_path: Path) -> None:
    rule = [word.replace(PROJECT, "another") for word in _documented_rule("features_writer")]
    with _user(server, rule) as options, pytest.raises(OnlineStoreRefusedError, match="permission"):
        feasts_calls_read_write_and_delete(options, tmp_path)


def test_a_wrong_password_is_refused_and_not_called_unavailable(server: Valkey) -> None:
    with _user(server, _documented_rule("features_writer")) as options:
        settings = RedisSettings(server.url, username=options["username"], password="wrong")
        with pytest.raises(OnlineStoreRefusedError, match="password"):
            rows_of_both_views_survive_their_writers(settings)


# ---- failures ----


def test_a_dropped_connection_is_made_anew_without_an_error(server: Valkey, tmp_path: Path) -> None:
    with _plug_in({"connection_string": server.url}, tmp_path) as (store, config, view):
        rows = [(_entity("a"), {"f": Value(int64_val=5)}, at(NOW_MS), None)]

        async def use() -> None:
            for call in (
                lambda: store.online_write_batch_async(config, view, rows, None),
                lambda: store.online_read_async(config, view, [_entity("a")]),
            ):
                await call()
                _drop_all_connections(server)
                await call()
            await store.close()

        asyncio.run(use())
        store.online_write_batch(config, view, rows, None)
        _drop_all_connections(server)
        store.online_write_batch(config, view, rows, None)
        _drop_all_connections(server)
        assert _values(store, config, view) == [5]


def _drop_all_connections(server: Valkey) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")


def test_a_call_that_timed_out_is_not_sent_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        client = connect(RedisSettings(url, socket_timeout=0.2))
        with closing(client), pytest.raises(OnlineStoreUnavailableError), unavailable_if_redis_fails():
            client.get("k")
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_server_that_is_read_only_or_full_is_unavailable_until_it_is_not(tmp_path: Path) -> None:
    with Valkey(tmp_path / "sick") as sick, redis.Redis.from_url(sick.url) as operator:
        settings = RedisSettings(sick.url)
        operator.config_set("maxmemory", 1)
        with pytest.raises(OnlineStoreUnavailableError, match="maxmemory"):
            rows_of_both_views_survive_their_writers(settings)
        operator.config_set("maxmemory", 0)
        operator.config_set("replica-serve-stale-data", "yes")
        operator.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(OnlineStoreUnavailableError, match="read only"):
            rows_of_both_views_survive_their_writers(settings)
        operator.config_set("replica-serve-stale-data", "no")
        client = connect(settings)
        with closing(client), pytest.raises(OnlineStoreUnavailableError, match="MASTER"), unavailable_if_redis_fails():
            client.get("k")
        operator.replicaof("NO", "ONE")
        rows_of_both_views_survive_their_writers(settings)


def test_a_key_that_holds_something_else_is_no_row_and_is_not_overwritten(server: Valkey, tmp_path: Path) -> None:
    with (
        _plug_in({"connection_string": server.url}, tmp_path) as (store, config, view),
        redis.Redis.from_url(server.url) as client,
    ):
        client.lpush(key(PROJECT, batch_view([]), "a"), "not a row")
        assert store.online_read(config, view, [_entity("a")]) == [(None, None)]
        with pytest.raises(OnlineStoreRefusedError, match="WRONGTYPE"):
            store.online_write_batch(config, view, [(_entity("a"), {}, at(NOW_MS), None)], None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (failures.ConnectionError("refused"), OnlineStoreUnavailableError),
        (failures.TimeoutError("slow"), OnlineStoreUnavailableError),
        (failures.BusyLoadingError("Redis is loading the dataset in memory"), OnlineStoreUnavailableError),
        (failures.MasterDownError("Link with MASTER is down"), OnlineStoreUnavailableError),
        (failures.ClusterDownError("The cluster is down"), OnlineStoreUnavailableError),
        (failures.TryAgainError("a slot is moving"), OnlineStoreUnavailableError),
        (failures.NoScriptError("No matching script"), OnlineStoreUnavailableError),
        (failures.ResponseError("BUSY Redis is busy running a script."), OnlineStoreUnavailableError),
        (failures.ResponseError("MISCONF Errors writing to the AOF file"), OnlineStoreUnavailableError),
        (failures.ResponseError("NOREPLICAS Not enough good replicas to write."), OnlineStoreUnavailableError),
        (
            failures.ResponseError("Error running script (call to f_1): @user_script: 2: -OOM command not allowed"),
            OnlineStoreUnavailableError,
        ),
        (
            failures.ResponseError("Command # 1 (GET k) of pipeline caused error: MISCONF Errors writing"),
            OnlineStoreUnavailableError,
        ),
        (failures.AuthenticationError("invalid username-password pair"), OnlineStoreRefusedError),
        (failures.NoPermissionError("this user has no permissions"), OnlineStoreRefusedError),
        (failures.ResponseError("WRONGTYPE Operation against a key"), OnlineStoreRefusedError),
        (failures.ResponseError("unknown command 'EVALSHA'"), OnlineStoreRefusedError),
        (failures.ResponseError("Command # 1 (GET OOM ) of pipeline caused error: WRONGTYPE"), OnlineStoreRefusedError),
        (failures.DataError("Invalid input of type: 'dict'"), OnlineStoreRefusedError),
    ],
    ids=lambda value: f"{value!r:.50}" if isinstance(value, Exception) else None,
)
def test_errors_that_pass_are_told_from_errors_that_stay(error: Exception, expected: type[OnlineStoreError]) -> None:
    with pytest.raises(expected) as caught, unavailable_if_redis_fails():
        raise error
    assert caught.value.__cause__ is error


# ---- settings ----


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (RedisSettings("http://host"), "URL"),
        (RedisSettings("redis://host?no_such_option=1"), "no_such_option"),
        (RedisSettings("redis://host/3", cluster=True), "database 0"),
        (RedisSettings("unix:///tmp/redis.sock", cluster=True), "socket"),
        (RedisSettings(sentinels=["h:1"]), "service_name"),
        (RedisSettings(sentinels=["h:port"], service_name="m"), "host:port"),
        (RedisSettings(service_name="m"), "sentinels"),
        (RedisSettings(sentinels=["h:1"], service_name="m", cluster=True), "exclude"),
        (RedisSettings(startup_nodes=["h:1"]), "cluster"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_make_no_client_say_what_to_change(settings: RedisSettings, says: str) -> None:
    for make in (connect, connect_async):
        with pytest.raises(ConnectionSettingsError, match=says):
            make(settings)


def test_passwords_do_not_show_when_settings_are_printed() -> None:
    settings = RedisSettings("redis://u:hidden-1@h", password="hidden-2", sentinel_password="hidden-3")
    assert "hidden" not in repr(settings)


def test_the_plug_in_has_every_setting_with_the_same_default() -> None:
    defaults = {field.name: field.default for field in fields(RedisSettings) if field.name != "url"}
    ours = {
        name: field.default
        for name, field in PackedRedisOnlineStoreConfig.model_fields.items()
        if name not in ("type", "connection_string")
    }
    assert ours == defaults


def test_the_page_names_every_setting() -> None:
    text = PAGE.read_text()
    names = [field.name for field in fields(RedisSettings) if field.name != "url"]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert read_page(PAGE) is not None
