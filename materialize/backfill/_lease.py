"""Who may backfill a view, and what Redis still has of it: three short keys of the view, in Redis beside its rows.

    <project>:backfill/{<view>}:lease     who holds the view; expires LEASE_MS after its holder was last alive
    <project>:backfill/{<view>}:mark      incarnation, and the number of the last result that Redis acknowledged
    <project>:backfill/{<view>}:progress  for each running part, rows done and rows in all

One job holds a view at a time. It renews its lease from a thread; a dead job's lease expires, and one on this machine
whose process is gone is taken over at once. A job that sleeps past its lease finds at its next step that another one
has it, and stops; what it wrote until then is what the other one writes, or older, so no row is spoilt.

The mark is how a manifest on a disk knows what became of rows in Redis:

1. Rows of a part are written, and acknowledged.
2. The mark's number goes up by one, if this job holds the lease and the mark is the one that it knows.
3. The manifest entry is written, with the mark's incarnation and number.

An entry counts only if the mark has its incarnation and at least its number. So a server that was emptied, another
server, or one that came back with an earlier state of its data makes the entries of what it lost worthless.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event as ThreadEvent
from threading import Thread

import redis

from materialize.backfill._errors import LeaseLostError, RowsLostError, ViewBusyError
from materialize.backfill._manifest import Mark
from materialize.online import OnlineStoreError, unavailable_if_redis_fails

LEASE_MS = 10_000
PROGRESS_MS = 3_600_000
_RENEW_EVERY_S = LEASE_MS / 4_000
_LOOK_EVERY_S = 0.25

_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[3] then return {0, held, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, '', 0}
"""
"""Take the lease KEYS[1] for ARGV[1], for ARGV[2] ms, if nobody has it, or ARGV[3] does, who is dead."""

_RENEW = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end"

_MARK = """
redis.call('HSETNX', KEYS[1], 'incarnation', ARGV[1])
local mark = redis.call('HMGET', KEYS[1], 'incarnation', 'number')
return {mark[1], tonumber(mark[2]) or 0}
"""

_ACKNOWLEDGE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return -1 end
local mark = redis.call('HMGET', KEYS[2], 'incarnation', 'number', 'last')
local number = tonumber(mark[2]) or 0
if mark[1] ~= ARGV[3] then return -2 end
if number == tonumber(ARGV[4]) + 1 and mark[3] == ARGV[5] then return number end
if number ~= tonumber(ARGV[4]) then return -2 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], 'number', string.format('%.0f', number + 1), 'last', ARGV[5])
return number + 1
"""
"""Count one more result of the holder ARGV[1], if the mark is ARGV[3] at ARGV[4]. ARGV[5] names the call, so that it
may be sent twice."""


@dataclass(frozen=True)
class ViewKeys:
    """The keys of one view, in one slot of a cluster."""

    lease: str
    mark: str
    progress: str

    @staticmethod
    def of(project: str, view: str) -> ViewKeys:
        """Those of this view."""
        prefix = f"{project}:backfill/{{{view}}}:"
        return ViewKeys(f"{prefix}lease", f"{prefix}mark", f"{prefix}progress")


@dataclass(frozen=True)
class Fence:
    """What a part of a job, wherever it runs, holds against the lease. `holder` is the value of the lease."""

    keys: ViewKeys
    holder: str

    def pass_or_raise(self, client: redis.Redis, part: str, done: int, total: int) -> None:
        """Say how far this part is. Raises LeaseLostError when another job has the view, and OnlineStoreError."""
        with unavailable_if_redis_fails():
            pipeline = client.pipeline(transaction=False)
            pipeline.get(self.keys.lease)
            pipeline.hset(self.keys.progress, part, f"{done} {total}")
            pipeline.pexpire(self.keys.progress, PROGRESS_MS)
            held = pipeline.execute()[0]
        self.check(held)

    def check(self, held: bytes | None) -> None:
        """Raises LeaseLostError when the lease, as Redis has it, is another job's."""
        if held is not None and held.decode() != self.holder:
            raise _lost(held)


class Lease:
    """The right of this process to backfill one view, from `take` to `release`."""

    def __init__(self, client: redis.Redis, project: str, view: str, now_ms: Callable[[], int]) -> None:
        self._client = client
        self._view = view
        self._keys = ViewKeys.of(project, view)
        self._holder = _holder(now_ms())
        self._ended = ThreadEvent()
        self._lost: bytes | None = None
        self._mark = Mark("", 0)
        self._renewing: Thread | None = None

    @property
    def fence(self) -> Fence:
        """For the parts of the job."""
        return Fence(self._keys, self._holder)

    @property
    def mark(self) -> Mark:
        """Which results Redis has acknowledged."""
        return self._mark

    def take(self, is_waiting: bool, alive: Callable[[], None]) -> None:
        """Take the view. A holder that seems dead is waited for until its lease is over, a living one if `is_waiting`.

        `alive` is called while waiting, and may raise. Raises ViewBusyError, OnlineStoreUnavailableError.
        """
        left_ms: int | None = None
        dead = ""
        while True:
            held, now_left_ms = self._try(dead)
            if held is None:
                break
            lives = left_ms is not None and now_left_ms > left_ms
            if lives and not is_waiting:
                raise ViewBusyError(
                    f"view {self._view!r} is being backfilled by {described(held)}: wait for it (--wait), or stop it"
                )
            dead = held.decode() if _is_dead(held) else ""
            left_ms = now_left_ms
            alive()
            if not dead:
                time.sleep(_LOOK_EVERY_S)
        self._mark = read_mark(self._client, self._keys)
        self._renewing = Thread(target=self._renew_for_ever, name="backfill-lease", daemon=True)
        self._renewing.start()

    def check(self) -> None:
        """Raises LeaseLostError when another job has the view by now."""
        if self._lost is not None:
            raise _lost(self._lost)

    def ask(self) -> None:
        """As `check`, but asks Redis, if it answers: what fails after a sleep may fail as another job cleaned up."""
        self.check()
        with suppress(OnlineStoreError), unavailable_if_redis_fails():
            self.fence.check(self._client.get(self._keys.lease))

    def acknowledge(self) -> Mark:
        """One more result is in Redis: the mark that its manifest entry carries.

        Raises LeaseLostError, RowsLostError when Redis is not what it was, OnlineStoreUnavailableError.
        """
        known = self._mark
        with unavailable_if_redis_fails():
            number = int(
                self._client.eval(
                    _ACKNOWLEDGE,
                    2,
                    self._keys.lease,
                    self._keys.mark,
                    self._holder,
                    LEASE_MS,
                    known.incarnation,
                    known.number,
                    uuid.uuid4().hex,
                )
            )
        if number == -1:
            raise _lost(self._client.get(self._keys.lease))
        if number < 0:
            raise RowsLostError(
                f"view {self._view!r}: Redis was emptied, or went back to an earlier state, while the job ran: "
                "run it again with --resume, which writes again what was lost"
            )
        self._mark = Mark(known.incarnation, number)
        return self._mark

    def progress(self) -> dict[str, tuple[int, int]]:
        """For each part that has said so, rows done and rows in all; nothing while Redis is away."""
        with suppress(OnlineStoreError), unavailable_if_redis_fails():
            told = self._client.hgetall(self._keys.progress)
            return {part.decode(): _pair(text) for part, text in told.items()}
        return {}

    def release(self) -> None:
        """Give the view back, if Redis can be told; otherwise the lease expires."""
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
        with suppress(OnlineStoreError), unavailable_if_redis_fails():
            self._client.eval(_RELEASE, 2, self._keys.lease, self._keys.progress, self._holder)

    def _try(self, dead: str) -> tuple[bytes | None, int]:
        """Who has it, None for us, and for how long still."""
        with unavailable_if_redis_fails():
            taken, held, left_ms = self._client.eval(_TAKE, 1, self._keys.lease, self._holder, LEASE_MS, dead)
        return (None, 0) if taken else (held, int(left_ms))

    def _renew_for_ever(self) -> None:
        while not self._ended.wait(_RENEW_EVERY_S):
            with suppress(OnlineStoreError), unavailable_if_redis_fails():
                if not self._client.eval(_RENEW, 1, self._keys.lease, self._holder, LEASE_MS):
                    self._lost = self._client.get(self._keys.lease) or b"{}"
                    return


def read_mark(client: redis.Redis, keys: ViewKeys, *, is_made: bool = True) -> Mark:
    """Redis' mark of the view; made if there is none, or as good as none unless `is_made`."""
    with unavailable_if_redis_fails():
        if not is_made:
            stored = client.hmget(keys.mark, "incarnation", "number")
            return Mark((stored[0] or b"").decode(), int(stored[1] or 0))
        incarnation, number = client.eval(_MARK, 1, keys.mark, uuid.uuid4().hex)
    return Mark(incarnation.decode(), int(number))


def forget_mark(client: redis.Redis, project: str, view: str) -> None:
    """The view's rows are no more: nothing that a manifest says of them counts any longer."""
    keys = ViewKeys.of(project, view)
    with unavailable_if_redis_fails():
        client.delete(keys.mark, keys.progress)


def described(held: bytes) -> str:
    """The holder of a lease, for people."""
    told = json.loads(held or b"{}")
    since = time.strftime("%H:%M:%S UTC", time.gmtime(told.get("since_ms", 0) / 1000))
    return f"process {told.get('pid')} on {told.get('host')}, since {since}"


def _pair(text: bytes) -> tuple[int, int]:
    done, total = text.split()
    return int(done), int(total)


def _lost(held: bytes | None) -> LeaseLostError:
    return LeaseLostError(
        f"another job took the view over while this one slept: {described(held or b'{}')}. Nothing is spoilt: "
        "let the other one finish"
    )


def _holder(now_ms: int) -> str:
    told = {"id": uuid.uuid4().hex, "host": platform.node(), "boot": _boot(), "pid": os.getpid(), "since_ms": now_ms}
    return json.dumps(told)


def _boot() -> str:
    """Which run of which machine this is; empty where nothing says."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _is_dead(held: bytes) -> bool:
    """Whether the holder was a process of this machine that is gone. Elsewhere only time tells."""
    told = json.loads(held)
    if (told["host"], told["boot"]) != (platform.node(), _boot()) or not told["boot"]:
        return False
    try:
        os.kill(told["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
