"""The two writes, each atomic on the server for each row, and the calls that carry many of them.

One call of a script carries many rows where one server has them all: a call costs the server more than a row does. In a
cluster each row goes alone, to the node that has it. Both writes may be repeated: what a call that failed half-way has
written is not written twice. A batch row that is there already is not newer than itself; a stream row that is there
already has another version than the one that was read, and knows the events that it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from materialize.online._batch_layout import CREATED_FLAG
from materialize.online._header import PREFIX_SIZE, VERSION_SLICE

ROWS_MAX = 128
BYTES_MAX = 128 * 1024
"""Rows, and bytes of rows, in one call: it keeps the server from everything else for a third of a millisecond or so."""

AHEAD_MAX = 2
"""Calls sent before the answer to the first of them is read, so that the server need not wait for us."""


@dataclass(frozen=True)
class Script:
    """A script, which the server knows by its hash once it has been loaded."""

    text: str

    @cached_property
    def sha(self) -> str:
        """What EVALSHA names it by."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


COMPARE_AND_SET = Script(f"""
local done = {{}}
for i, key in ipairs(KEYS) do
  if redis.call('GETRANGE', key, {VERSION_SLICE.start}, {VERSION_SLICE.stop - 1}) == ARGV[2 * i] then
    redis.call('SET', key, ARGV[2 * i + 1], 'PX', ARGV[1])
    done[i] = '1'
  else
    done[i] = '0'
  end
end
return table.concat(done)
""")
"""Write stream rows unless another writer was faster. ARGV: their life in milliseconds, then for each key the version
bytes that were read ('' for no row) and the row. Returns '1' for each row that was written, '0' for the others."""

NEWER_WINS = Script(f"""
local function times(row)
  local created = 0
  if math.floor(string.byte(row, 4) / {CREATED_FLAG << 4}) % 2 == 1 then
    created = struct.unpack('<i8', row, {PREFIX_SIZE + 9})
  end
  return struct.unpack('<i8', row, {PREFIX_SIZE + 1}), created
end
local function is_older(row, stored)
  if #stored < {PREFIX_SIZE + 8} or string.sub(stored, 1, 3) ~= string.sub(row, 1, 3)
     or string.byte(stored, 4) % 16 ~= string.byte(row, 4) % 16
     or string.sub(stored, 9, 16) ~= string.sub(row, 9, 16) then
    return false
  end
  local event_time, created = times(row)
  local stored_event_time, stored_created = times(stored)
  return stored_event_time > event_time or (stored_event_time == event_time and stored_created > created)
end
local written = 0
for i, key in ipairs(KEYS) do
  local row = ARGV[i + 1]
  if not is_older(row, redis.call('GETRANGE', key, 0, {PREFIX_SIZE + 15})) then
    if ARGV[1] == '0' then redis.call('SET', key, row) else redis.call('SET', key, row, 'PX', ARGV[1]) end
    written = written + 1
  end
end
return written
""")
"""Write each batch row unless the stored one has a newer event time, or the same and a later created time. A row of
another schema or format always gives way. ARGV: their life in milliseconds or 0 for ever, then the rows. Returns how
many were written."""


@dataclass(frozen=True)
class Call:
    """One call of a script: the keys of some rows, and its arguments."""

    keys: Sequence[bytes]
    arguments: Sequence[bytes]


def newer_wins(client: redis.Redis, keys: Sequence[bytes], rows: Sequence[bytes], life_ms: int) -> int:
    """Run NEWER_WINS for each key and row. Returns how many were written; the others were older."""
    return sum(_answers(client, NEWER_WINS, newer_wins_calls(keys, rows, life_ms, is_one_server(client))))


def newer_wins_calls(keys: Sequence[bytes], rows: Sequence[bytes], life_ms: int, together: bool) -> list[Call]:
    """The calls of NEWER_WINS that carry these rows, many in each if `together`."""
    life = b"%d" % life_ms
    return [Call(keys[part], [life, *rows[part]]) for part in _parts(rows, together)]


def compare_and_set(
    client: redis.Redis, keys: Sequence[bytes], versions: Sequence[bytes], rows: Sequence[bytes], life_ms: int
) -> list[bool]:
    """Run COMPARE_AND_SET for each key. Returns which rows were written; another writer was faster at the others."""
    life = b"%d" % life_ms
    calls = []
    for part in _parts(rows, is_one_server(client)):
        pairs = zip(versions[part], rows[part], strict=True)
        calls.append(Call(keys[part], [life, *(argument for pair in pairs for argument in pair)]))
    return [done == ord("1") for answer in _answers(client, COMPARE_AND_SET, calls) for done in answer]


def is_one_server(client: Any) -> bool:
    """Whether one server has all keys, so that one command may name many."""
    return isinstance(client, (redis.Redis, redis.asyncio.Redis))


def _parts(rows: Sequence[bytes], together: bool) -> Iterator[slice]:
    """Which rows go into each call."""
    begin, size = 0, 0
    for place, row in enumerate(rows):
        if place > begin and (not together or place - begin == ROWS_MAX or size + len(row) > BYTES_MAX):
            yield slice(begin, place)
            begin, size = place, 0
        size += len(row)
    if begin < len(rows):
        yield slice(begin, len(rows))


def _answers(client: redis.Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
    """The answer to each call. A server that does not know the script, new or started again, is told it."""
    send = _pipelined if is_one_server(client) else _routed
    try:
        return send(client, script, calls)
    except NoScriptError:
        client.script_load(script.text)
        return send(client, script, calls)


def _pipelined(client: redis.Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
    """To one server, the next calls on their way before the answer to the last one is read.

    The commands are packed here: a pipeline of the library spends more on one than the server does.
    """
    if not calls:
        return []
    connection = client.connection_pool.get_connection()
    answers: list[Any] = []
    try:
        for sent, call in enumerate(calls):
            if sent - len(answers) >= AHEAD_MAX:
                answers.append(connection.read_response())
            connection.send_packed_command([_packed(script, call)])
        while len(answers) < len(calls):
            answers.append(connection.read_response())
    except BaseException:
        connection.disconnect()  # answers that nobody read would be taken for those of the next command
        raise
    finally:
        client.connection_pool.release(connection)
    return answers


def _routed(client: redis.Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)  # that of a cluster blocks `evalsha` by name, and routes it by key
    for call in calls:
        pipeline.execute_command("EVALSHA", script.sha, len(call.keys), *call.keys, *call.arguments)
    return list(pipeline.execute())


def _packed(script: Script, call: Call) -> bytes:
    parts = [b"EVALSHA", script.sha.encode(), b"%d" % len(call.keys), *call.keys, *call.arguments]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])
