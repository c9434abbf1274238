"""The embedded Valkey: one server per directory, whatever happened to the one before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import redis

from actor_risk.local import StartError, Valkey, wait_until
from actor_risk.local.processes import is_alive
from actor_risk.local.server import ServerRecord


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory whose server, if one runs at the end, is stopped; its name would break careless quoting."""
    path = tmp_path / 'a "server\'s" directory'
    yield path
    Valkey(path).stop()


def answers(server: Valkey) -> bool:
    with redis.Redis.from_url(server.url) as client:
        return bool(client.ping())


def write_record(directory: Path, record: ServerRecord) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "server.json").write_bytes(msgspec.json.encode(record))


def ended_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_server_answers_inside_the_block_and_is_gone_after_it(directory: Path) -> None:
    with Valkey(directory) as server:
        assert answers(server)
        pid = server.record.pid
    assert not is_alive(pid)
    assert server.running() is None


def test_a_server_is_stopped_after_a_failure_in_the_block(directory: Path) -> None:
    server = Valkey(directory)

    def fail_inside() -> None:
        with server:
            pids.append(server.record.pid)
            raise ZeroDivisionError

    pids: list[int] = []
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert not is_alive(pids[0])


def test_it_listens_on_loopback_only(directory: Path) -> None:
    with Valkey(directory) as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_the_address_of_a_server_that_is_not_started_is_an_error(directory: Path) -> None:
    with pytest.raises(StartError, match=r"call start\(\)"):
        _ = Valkey(directory).url


def test_data_survives_a_restart_if_it_is_append_only(directory: Path) -> None:
    with Valkey(directory, append_only=True) as server, redis.Redis.from_url(server.url) as client:
        client.set("k", "v")
    with Valkey(directory, append_only=True) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("k") == b"v"


def test_a_second_start_in_the_directory_uses_the_running_server_and_leaves_it_running(directory: Path) -> None:
    with Valkey(directory) as first:
        with Valkey(directory) as second:
            assert second.record == first.record
        assert answers(first)


def test_starts_at_the_same_time_give_one_server(directory: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(lambda _: Valkey(directory, detached=True).start(), range(4)))
    assert len({server.record for server in servers}) == 1


@pytest.mark.parametrize("detached", [False, True])
def test_after_its_owner_was_killed_the_directory_can_be_used_at_once(directory: Path, detached: bool) -> None:
    script = (
        "import sys, time; from pathlib import Path; from actor_risk.local import Valkey;"
        "server = Valkey(Path(sys.argv[1]), detached=sys.argv[2] == 'True').start();"
        "print(server.record.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(directory), str(detached)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    with Valkey(directory) as server:
        assert answers(server)
        assert (server.record.pid == pid) == detached


def test_an_orphan_that_outlived_its_owner_is_stopped_and_replaced(directory: Path) -> None:
    orphan = Valkey(directory, detached=True).start().record
    write_record(directory, ServerRecord(pid=orphan.pid, port=orphan.port, owner_pid=ended_pid()))
    with Valkey(directory) as server:
        assert server.record.pid != orphan.pid
        assert not is_alive(orphan.pid)
        assert answers(server)


def test_a_server_that_does_not_answer_is_stopped_and_replaced(directory: Path) -> None:
    lost = Valkey(directory, detached=True).start().record
    write_record(directory, ServerRecord(pid=lost.pid, port=1, owner_pid=0))
    with Valkey(directory) as server:
        assert not is_alive(lost.pid)
        assert answers(server)


def test_a_record_that_points_at_somebody_elses_process_harms_nobody(directory: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        write_record(directory, ServerRecord(pid=stranger.pid, port=6379, owner_pid=os.getpid()))
        with Valkey(directory) as server:
            assert answers(server)
        write_record(directory, ServerRecord(pid=stranger.pid, port=6379, owner_pid=os.getpid()))
        Valkey(directory).stop()
        assert stranger.poll() is None
        stranger.kill()


def test_a_torn_record_is_no_record(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "server.json").write_bytes(b'{"pid": 12')
    with Valkey(directory) as server:
        assert answers(server)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(directory: Path) -> None:
    append_only = directory / "data" / "appendonlydir"
    append_only.mkdir(parents=True)
    (append_only / "appendonly.aof.manifest").write_text("no manifest")
    with pytest.raises(StartError, match="AOF manifest"):
        Valkey(directory, append_only=True).start()
    assert Valkey(directory).running() is None


def test_stopping_where_nothing_runs_does_nothing(directory: Path) -> None:
    Valkey(directory).stop()
    assert not directory.exists()


def test_a_server_killed_from_outside_is_replaced_at_the_next_start(directory: Path) -> None:
    with Valkey(directory) as server:
        os.kill(server.record.pid, 9)
        wait_until(lambda: not is_alive(server.record.pid), 20, "the server has ended")
        assert answers(server.start())
