"""The two writes, each atomic on the server for each row, and the calls that carry many of them.

One call of a script carries many rows where one server has them all: a call costs the server more than a row does. In a
cluster each row goes alone, to the node that has it. Many rows of which the server has nothing yet go by its own
MSETEX, where it has that: a script costs it more than twice as much.

A call that fails half-way leaves some of its rows written, and none in part. Both writes may be repeated, all or in
part, whether or not the server did them. A batch row that is there already is not newer than itself. A stream row that
is there already has another version than the one that was read, so it counts as lost to another writer; who reads it
again finds in it the events and the offsets that it was to have.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from materialize.online._batch_layout import CREATED_FLAG
from materialize.online._fetch import fetch
from materialize.online._header import PREFIX_SIZE, VERSION_SLICE

ROWS_MAX = 128
BYTES_MAX = 128 * 1024
"""Rows, and bytes of rows, in one call: it keeps the server from everything else for a third of a millisecond or so."""

AHEAD_MAX = 2
"""Calls sent before the answer to the first of them is read, so that the server need not wait for us."""

LOOKED_UP_MAX = 512
"""Batch rows that are looked up at a time before they are written."""

UNSEEN_FOR = 8
"""How many writes go by the script alone, unlooked, after one that found most of its rows stored already."""

NEW_MIN = 32
"""Fewer new stream rows than this go with the others: two calls take longer than one."""

ROUTED_MAX = 512
"""Calls of one row each that are sent through a cluster's nodes at a time: bounds what is held in memory."""

_EVENT_TIME_AT = PREFIX_SIZE
_CREATED_AT = _EVENT_TIME_AT + 8
_TIMES_END = _CREATED_AT + 8
_PREFIX_IN_LUA = "<c3Bxxxxc8"
"""What `_header` packs: magic and format version, kind with flags, the checksum that is skipped, fingerprint."""


Call = list[bytes]
"""One command: its name and arguments."""


@dataclass(frozen=True)
class Script:
    """A script, which the server knows by its hash once it has been loaded."""

    text: str

    @cached_property
    def sha(self) -> str:
        """What EVALSHA names it by."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


COMPARE_AND_SET = Script(f"""
local call, argv, done = redis.call, ARGV, {{}}
for i, key in ipairs(KEYS) do
  if call('GETRANGE', key, {VERSION_SLICE.start}, {VERSION_SLICE.stop - 1}) == argv[2 * i] then
    call('SET', key, argv[2 * i + 1], 'PX', argv[1])
    done[i] = '1'
  else
    done[i] = '0'
  end
end
return table.concat(done)
""")
"""Write stream rows unless another writer was faster. ARGV: their life in milliseconds, then for each key the version
bytes that were read ('' for no row) and the row. Returns '1' for each row that was written, '0' for the others."""

# The event time is looked at first: it alone decides for most rows, and to unpack all costs more than the GETRANGE.
NEWER_WINS = Script(f"""
local call, unpack, argv = redis.call, struct.unpack, ARGV
local function created(row, flags)
  return math.floor(flags / {CREATED_FLAG << 4}) % 2 == 1 and unpack('<i8', row, {_CREATED_AT + 1}) or 0
end
local function is_older(row, stored, later)
  local format, kind, fingerprint = unpack('{_PREFIX_IN_LUA}', row)
  local stored_format, stored_kind, stored_fingerprint = unpack('{_PREFIX_IN_LUA}', stored)
  if stored_format ~= format or stored_kind % 16 ~= kind % 16 or stored_fingerprint ~= fingerprint then return false end
  return later or created(stored, stored_kind) > created(row, kind)
end
local written = 0
for i, key in ipairs(KEYS) do
  local row, stored, older = argv[i + 1], call('GETRANGE', key, 0, {_TIMES_END - 1}), false
  if #stored >= {_CREATED_AT} then
    local time, stored_time = unpack('<i8', row, {_EVENT_TIME_AT + 1}), unpack('<i8', stored, {_EVENT_TIME_AT + 1})
    older = stored_time >= time and is_older(row, stored, stored_time > time)
  end
  if not older then
    if argv[1] == '0' then call('SET', key, row) else call('SET', key, row, 'PX', argv[1]) end
    written = written + 1
  end
end
return written
""")
"""Write each batch row unless the stored one has a newer event time, or the same and a later created time. A row of
another schema or format always gives way. ARGV: their life in milliseconds or 0 for ever, then the rows. Returns how
many were written."""


class RowCalls:
    """The two writes through one client."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._has_msetex = is_one_server(client)
        self._unseen = 0

    def newer_wins(self, keys: Sequence[bytes], rows: Sequence[bytes], life_ms: int) -> int:
        """Write each batch row unless a newer one is stored. Returns how many were written; the others were older."""
        new, left = self._set_new(self._unstored(keys), keys, rows, life_ms)
        own_keys, own_rows = ([one[i] for i in left] for one in (keys, rows))
        calls = _newer_wins_calls(self._client, own_keys, own_rows, life_ms)
        return len(new) + sum(int(written) for written in _answers(self._client, NEWER_WINS, calls))

    def compare_and_set(
        self, keys: Sequence[bytes], versions: Sequence[bytes], rows: Sequence[bytes], life_ms: int
    ) -> list[bool]:
        """Write each stream row where the version is stored that was read, b"" for none. Returns which were written;
        another writer was faster at the others, or the server did it and its answer was lost."""
        unstored = [i for i, version in enumerate(versions) if not version]
        new, left = self._set_new(unstored if len(unstored) >= NEW_MIN else [], keys, rows, life_ms)
        life, own_rows = b"%d" % life_ms, [rows[i] for i in left]
        calls = []
        for part in _parts(own_rows, is_one_server(self._client)):
            pairs = [one for i in left[part] for one in (versions[i], rows[i])]
            calls.append(_call(COMPARE_AND_SET, [keys[i] for i in left[part]], [life, *pairs]))
        answers = [done == ord("1") for answer in _answers(self._client, COMPARE_AND_SET, calls) for done in answer]
        written = {*new, *(i for i, done in zip(left, answers, strict=True) if done)}
        return [i in written for i in range(len(keys))]

    def _unstored(self, keys: Sequence[bytes]) -> list[int]:
        """The places of keys that nothing is stored at, as far as it is worth to know: none when most have a row."""
        if not self._has_msetex or self._unseen:
            self._unseen = max(0, self._unseen - 1)
            return []
        new: list[int] = []
        for begin in range(0, len(keys), LOOKED_UP_MAX):
            stored = fetch(self._client, keys[begin : begin + LOOKED_UP_MAX])
            found = [begin + i for i, row in enumerate(stored) if row is None]
            if 2 * len(found) < len(stored):
                self._unseen = UNSEEN_FOR
                return []
            new += found
        return new

    def _set_new(
        self, places: Sequence[int], keys: Sequence[bytes], rows: Sequence[bytes], life_ms: int
    ) -> tuple[list[int], list[int]]:
        """Set the rows at these places where nothing is stored; when one of a call is there, none of that call is set.
        Of several rows of one key only the first is, since of two in a call the last would stay.

        Returns the places of those that were set, and all others.
        """
        if not self._has_msetex or not places:
            return [], list(range(len(keys)))
        places = sorted({keys[i]: i for i in reversed(places)}.values())
        parts = [places[part] for part in _parts([rows[i] for i in places], together=True)]
        options = [b"NX", *([b"PX", b"%d" % life_ms] if life_ms else [])]
        calls = [
            [b"MSETEX", b"%d" % len(part), *(one for i in part for one in (keys[i], rows[i])), *options]
            for part in parts
        ]
        answers: list[Any] = []
        try:
            _pipelined(self._client, calls, answers)
        except ResponseError as error:
            if not (isinstance(error, NoPermissionError) or str(error).startswith("unknown command")):
                raise
            self._has_msetex = False  # before Redis 8.4 and Valkey 9.1, or for this user
        new = [i for part, answer in zip(parts, answers, strict=False) if answer for i in part]
        done = set(new)
        return new, [i for i in range(len(keys)) if i not in done]


async def newer_wins_async(
    client: redis.asyncio.Redis, keys: Sequence[bytes], rows: Sequence[bytes], life_ms: int
) -> int:
    """Run NEWER_WINS for each key and row without blocking the event loop. Returns how many were written."""
    calls = _newer_wins_calls(client, keys, rows, life_ms)
    at_once = AHEAD_MAX if is_one_server(client) else ROUTED_MAX
    written = 0
    for begin in range(0, len(calls), at_once):
        part = calls[begin : begin + at_once]
        try:
            written += sum(await _sent_async(client, part))
        except NoScriptError:
            await client.script_load(NEWER_WINS.text)
            written += sum(await _sent_async(client, part))
    return written


def is_one_server(client: Any) -> bool:
    """Whether one server has all keys, so that one command may name many."""
    return isinstance(client, (redis.Redis, redis.asyncio.Redis))


def _newer_wins_calls(client: Any, keys: Sequence[bytes], rows: Sequence[bytes], life_ms: int) -> list[Call]:
    life = b"%d" % life_ms
    return [_call(NEWER_WINS, keys[part], [life, *rows[part]]) for part in _parts(rows, is_one_server(client))]


def _call(script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Call:
    """One call of a script: the keys of some rows, and its arguments."""
    return [b"EVALSHA", script.sha.encode(), b"%d" % len(keys), *keys, *arguments]


def _parts(rows: Sequence[bytes], together: bool) -> Iterator[slice]:
    """Which rows go into each call: one, or as many as the bounds let."""
    begin, most = 0, ROWS_MAX if together else 1
    while begin < len(rows):
        sizes = list(accumulate(map(len, rows[begin : begin + most])))
        end = begin + max(1, bisect_right(sizes, BYTES_MAX))
        yield slice(begin, end)
        begin = end


def _answers(client: redis.Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
    """The answer to each call. A server that does not know the script, new or started again, is told it, and asked
    what it has not answered yet."""
    ask = _pipelined if is_one_server(client) else _routed
    answers: list[Any] = []
    try:
        ask(client, calls, answers)
    except NoScriptError:
        client.script_load(script.text)
        ask(client, calls, answers)
    return answers


def _pipelined(client: redis.Redis, calls: Sequence[Call], answers: list[Any]) -> None:
    """Ask one server for the answers that are missing, on a dropped connection again as often as the client is set to.

    The commands are packed here: a pipeline of the library spends more on one than the server does.
    """
    if len(answers) == len(calls):
        return
    connection = client.connection_pool.get_connection()
    try:
        connection.retry.call_with_retry(
            lambda: _exchange(connection, calls, answers), lambda _: connection.disconnect()
        )
    except BaseException:
        connection.disconnect()  # answers that nobody read would be taken for those of the next command
        raise
    finally:
        client.connection_pool.release(connection)


def _exchange(connection: Any, calls: Sequence[Call], answers: list[Any]) -> None:
    """Send the calls that have no answer, the next ones on their way before the answer to the last one is read."""
    sent = len(answers)
    while len(answers) < len(calls):
        while sent < len(calls) and sent - len(answers) < AHEAD_MAX:
            # a health check takes the next answer for its own, so only when none is on its way
            connection.send_packed_command([_packed(calls[sent])], check_health=sent == len(answers))
            sent += 1
        answers.append(connection.read_response())


def _routed(client: redis.Redis, calls: Sequence[Call], answers: list[Any]) -> None:
    """Ask a cluster for the answers that are missing."""
    for begin in range(len(answers), len(calls), ROUTED_MAX):
        pipeline = client.pipeline(transaction=False)
        _put(pipeline, calls[begin : begin + ROUTED_MAX])
        answers.extend(pipeline.execute())


async def _sent_async(client: redis.asyncio.Redis, calls: Sequence[Call]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipeline:
        _put(pipeline, calls)
        return list(await pipeline.execute())


def _put(pipeline: Any, calls: Sequence[Call]) -> None:
    for call in calls:  # the pipeline of a cluster blocks `evalsha` by name, and routes it by key
        pipeline.execute_command(call[0].decode(), *call[1:])


def _packed(call: Call) -> bytes:
    pieces = [b"\r\n"] * (3 * len(call))
    pieces[0::3] = [b"$%d\r\n" % len(part) for part in call]
    pieces[1::3] = call
    return b"*%d\r\n" % len(call) + b"".join(pieces)
