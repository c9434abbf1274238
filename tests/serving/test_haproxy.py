"""Scores beyond capacity are refused by HAProxy itself, as Ray starts it, in front of replicas that we hold still."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import serving.haproxy
from actor_risk.local import free_port
from serving.edge import Door
from serving.haproxy import REFUSAL, with_admission
from tests.serving.fakes import build_world

DEADLINE_S = 20.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CAPACITY = 2

needs_haproxy = pytest.mark.skipif(sys.platform != "linux", reason="there is a HAProxy for Linux")


class Replica:
    """Answers each request when `go` is set, as a replica that takes CAPACITY scores at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.heads: list[bytes] = []

    @property
    def reached(self) -> int:
        """How many requests have come."""
        return len(self.heads)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await asked(reader):
            self.heads.append(head)
            await self.go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nx-capacity: %d\r\ncontent-length: 2\r\n\r\n{}" % CAPACITY)
        writer.close()


async def asked(reader: asyncio.StreamReader) -> bytes:
    """Read one request; its head in small letters, empty when there is none."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return head


def ray_config(port: int, replica_ports: list[int], backend: str, defaults: str) -> str:
    """What of Ray's configuration matters here, in its form; `backend`, `defaults`: a line more in these sections."""
    servers = [f"    server SERVE_REPLICA_{i} 127.0.0.1:{p}" for i, p in enumerate(replica_ports)]
    lines = [
        *("global", "    maxconn 4096", "    nbthread 1", "defaults", "    mode http", "    timeout connect 5s"),
        *(
            "    timeout client 60s",
            "    timeout server 60s",
            defaults,
            "    balance leastconn",
            "frontend http_frontend",
        ),
        *(f"    bind 127.0.0.1:{port}", "    use_backend http-actor-risk", "backend http-actor-risk", backend),
        *("    log global", "    http-reuse always", *servers),
    ]
    return "\n".join(lines) + "\n"


class Front(NamedTuple):
    """HAProxy's process and port, the servers behind it, its configuration's path, and what Ray would have written."""

    pid: int
    port: int
    servers: list[asyncio.Server]
    path: Path
    config: str


@asynccontextmanager
async def haproxy(folder: Path, *serves: Serve, backend: str = "", defaults: str = "") -> AsyncIterator[Front]:
    """HAProxy by way of our program, as Ray calls it, in front of a server for each of `serves`."""
    servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for serve in serves]
    port, path = free_port(), folder / "haproxy.cfg"
    config = ray_config(port, [server.sockets[0].getsockname()[1] for server in servers], backend, defaults)
    path.write_text(config)
    program = [sys.executable, "-P", serving.haproxy.__file__, "-db", "-f", str(path)]
    environment = {**os.environ, "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / "ourselves")}
    with (folder / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(*program, env=environment, stdout=errors, stderr=errors)
    try:
        await until_open(port)
        yield Front(process.pid, port, servers, path, config)
    finally:
        process.terminate()
        await process.wait()
        for server in servers:
            server.close()


async def until_open(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


async def post(port: int, path: str = "/v1/score", field: bytes = b"host: x") -> bytes:
    """One request on a connection of its own; the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST %b HTTP/1.1\r\n%b\r\nconnection: close\r\ncontent-length: 2\r\n\r\n" % (path.encode(), field)
    writer.write(head + b"{}")
    answer = await reader.read()
    writer.close()
    return answer.lower()


async def until_reached(replicas: list[Replica], count: int) -> None:
    while sum(replica.reached for replica in replicas) < count:
        await asyncio.sleep(0.01)


@needs_haproxy
@pytest.mark.parametrize("count", [1, 2])
def test_scores_beyond_what_all_replicas_take_are_refused_before_them(tmp_path: Path, count: int) -> None:
    async def scene() -> None:
        replicas = [Replica() for _ in range(count)]
        async with haproxy(tmp_path, *(replica.serve for replica in replicas)) as front:
            port = front.port
            first = await post(port)
            assert first.startswith(b"http/1.1 200")
            assert b"x-capacity" not in first
            for replica in replicas:
                replica.go.clear()
            room = CAPACITY * count
            held = [asyncio.create_task(post(port)) for _ in range(room)]
            await until_reached(replicas, 1 + room)
            refused = await post(port)
            batches = [asyncio.create_task(post(port, "/v1/score:batch")) for _ in range(3)]
            await until_reached(replicas, 1 + room + 3)
            for replica in replicas:
                replica.go.set()
            answers = await asyncio.gather(*held, *batches)
            again = await post(port)
        assert refused.startswith(b"http/1.1 429")
        assert b"retry-after: 1\r\n" in refused
        assert refused.endswith(b"\r\n\r\n" + REFUSAL.lower().encode())
        assert all(answer.startswith(b"http/1.1 200") for answer in (*answers, again))
        assert sum(replica.reached for replica in replicas) == 2 + room + 3

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
def test_replicas_are_told_once_how_many_scores_were_refused_before_them(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica()
        async with haproxy(tmp_path, replica.serve) as front:
            port = front.port
            await post(port)
            for refused in (3, 1):
                replica.go.clear()
                held = [asyncio.create_task(post(port)) for _ in range(CAPACITY)]
                await until_reached([replica], replica.reached + CAPACITY)
                for _ in range(refused):
                    assert (await post(port)).startswith(b"http/1.1 429")
                replica.go.set()
                await asyncio.gather(*held)
                for path in ("/v1/score:batch", "/elsewhere/v1/score"):  # whoever does not count is not told
                    await post(port, path)
                for _ in range(2):
                    await post(port, field=b"x-refused: 7")
        told = [re.findall(rb"x-refused: (\S*)\r", head) for head in replica.heads]
        nothing_new: list[list[bytes]] = [[]] * (CAPACITY + 2)
        assert told == [[], *nothing_new, [b"3"], [], *nothing_new, [b"1"], []]

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
def test_scores_that_hang_on_a_replica_that_has_stopped_take_no_place_of_another(tmp_path: Path) -> None:
    async def scene() -> None:
        replicas, watched = [Replica(), Replica()], "    default-server check inter 50ms"
        async with haproxy(tmp_path, *(replica.serve for replica in replicas), defaults=watched) as front:
            port = front.port
            await post(port)
            for replica in replicas:
                replica.go.clear()
            room = CAPACITY * 2
            held = [asyncio.create_task(post(port)) for _ in range(room)]
            await until_reached(replicas, 1 + room)
            front.servers[0].close()
            while "/SERVE_REPLICA_0 is DOWN" not in (tmp_path / "stderr").read_text():
                await asyncio.sleep(0.02)
            replicas[1].go.set()
            while sum(task.done() for task in held) < room // 2:
                await asyncio.sleep(0.01)
            for _ in range(10):
                assert (await post(port)).startswith(b"http/1.1 200")
            replicas[0].go.set()
            await asyncio.gather(*held)

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
def test_the_same_of_idle_replicas_is_asked_for_scores_and_the_other_only_while_it_works(tmp_path: Path) -> None:
    async def scene() -> None:
        replicas = [Replica(), Replica()]
        async with haproxy(tmp_path, *(replica.serve for replica in replicas)) as front:
            for _ in range(10):
                await post(front.port)
            first, other = sorted(replicas, key=lambda replica: -replica.reached)
            assert (first.reached, other.reached) == (10, 0)
            first.go.clear()
            held = asyncio.create_task(post(front.port))
            await until_reached([first], 11)
            for _ in range(10):
                await post(front.port)
            assert (first.reached, other.reached) == (11, 10)
            first.go.set()
            await held
            await post(front.port)
            assert (first.reached, other.reached) == (12, 10)

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
@pytest.mark.parametrize(("variable", "policy"), [(None, "SCHED_BATCH"), ("1", "SCHED_BATCH"), ("0", "SCHED_OTHER")])
def test_haproxy_interrupts_nobody_unless_that_is_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, policy: str
) -> None:
    async def scene() -> None:
        async with haproxy(tmp_path, Replica().serve) as front:
            await post(front.port)
            assert os.sched_getscheduler(front.pid) == getattr(os, policy)

    monkeypatch.delenv("ACTOR_RISK_SCHED_BATCH", raising=False)
    if variable is not None:
        monkeypatch.setenv("ACTOR_RISK_SCHED_BATCH", variable)
    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
def test_who_reads_metrics_comes_to_each_replica_whoever_answers_scores(tmp_path: Path) -> None:
    async def scene() -> None:
        replicas = [Replica() for _ in range(3)]
        async with haproxy(tmp_path, *(replica.serve for replica in replicas)) as front:
            for _ in range(90):
                await post(front.port)
                await post(front.port, "/metrics")
        scores, *others = sorted((replica.reached for replica in replicas), reverse=True)
        assert scores > 90 + 10
        assert min(others) > 10  # each expects 30

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
def test_when_the_replica_that_is_asked_first_is_gone_the_other_answers(tmp_path: Path) -> None:
    async def scene() -> None:
        replicas = [Replica(), Replica()]
        as_ray = "    option redispatch 1\n    default-server check inter 50ms"
        async with haproxy(tmp_path, *(replica.serve for replica in replicas), defaults=as_ray) as front:
            await post(front.port)
            (gone,) = (n for n, replica in enumerate(replicas) if replica.reached)
            front.servers[gone].close()
            while f"/SERVE_REPLICA_{gone} is DOWN" not in (tmp_path / "stderr").read_text():
                assert (await post(front.port)).startswith(b"http/1.1 200")
            for _ in range(10):
                assert (await post(front.port)).startswith(b"http/1.1 200")

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


HEAD = b"POST /v1/score HTTP/1.1\r\nhost: x\r\n"
STALLED = {
    "no end of the head": HEAD,
    "no body": HEAD + b"content-length: 2\r\n\r\n",
    "half a body": HEAD + b"content-length: 2\r\n\r\n{",
    "a long body of which a buffer is full": HEAD + b"content-length: 100000\r\n\r\n" + b" " * 60_000,
    "half a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{",
}


@needs_haproxy
@pytest.mark.parametrize("kind", STALLED)
def test_who_does_not_send_a_whole_request_takes_nobodys_place(tmp_path: Path, kind: str) -> None:
    async def scene() -> None:
        async with haproxy(tmp_path, Replica().serve) as front:
            port = front.port
            await post(port)
            stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * CAPACITY)]
            for _, writer in stalled:
                writer.write(STALLED[kind])
                await writer.drain()
            for _ in range(30):  # past the second that HAProxy waits for a body
                assert (await post(port)).startswith(b"http/1.1 200")
                await asyncio.sleep(0.05)
            for _, writer in stalled:
                writer.close()

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
def test_head_and_body_in_two_packets_reach_a_replica_together(tmp_path: Path) -> None:
    async def scene() -> None:
        pieces = []

        async def remember(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pieces.append(await reader.read(1 << 16))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

        async with haproxy(tmp_path, remember) as front:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(HEAD + b"content-length: 2\r\n\r\n")
            await asyncio.sleep(0.1)
            writer.write(b"{}")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()
        assert pieces[0].endswith(b"\r\n\r\n{}")

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
def test_scores_are_refused_by_nobody_before_a_replica_has_said_what_it_takes(tmp_path: Path) -> None:
    async def scene() -> None:
        replica = Replica()
        replica.go.clear()
        async with haproxy(tmp_path, replica.serve) as front:
            held = [asyncio.create_task(post(front.port)) for _ in range(3 * CAPACITY)]
            await until_reached([replica], len(held))
            replica.go.set()
            answers = await asyncio.gather(*held)
        assert all(answer.startswith(b"http/1.1 200") for answer in answers)

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


@needs_haproxy
def test_a_configuration_that_does_not_bear_the_rule_stays_as_it_is(tmp_path: Path) -> None:
    async def scene() -> None:
        taken = "    stick-table type ip size 10 store conn_cur"
        async with haproxy(tmp_path, Replica().serve, backend=taken) as front:
            answer = await post(front.port)
            assert front.path.read_text() == front.config
        assert answer.startswith(b"http/1.1 200")

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))
    assert "scores are refused by replicas alone" in (tmp_path / "stderr").read_text()


def test_each_application_has_a_capacity_of_its_own_and_nothing_else_has_one() -> None:
    others = "backend default_backend\n    mode http\nbackend http-a-via-ingress-request-router\n    server one a:1\n"
    changed = with_admission("backend http-a\n    server one a:1 check\n" + others + "backend http-b\n    mode http\n")
    for kind in ("capacity", "refused"):
        assert len({*re.findall(rf"set-var\(proc\.({kind}\d)\)", changed)}) == 2
    assert changed.startswith("backend http-a\n    stick-table")
    assert "\n    server one a:1 check\n" + others + "backend http-b\n    stick-table" in changed
    assert with_admission(others) == others


def test_haproxy_refuses_in_the_words_of_a_replica(tmp_path: Path) -> None:
    door = Door()
    build_world(tmp_path).app.stand_at(door)
    assert door.refusal.body.decode() == REFUSAL
    assert (door.refusal.content_type, door.refusal.headers) == ("application/problem+json", (("retry-after", "1"),))
