"""The two writes, each atomic on the server, and the calls that carry many of them."""

from __future__ import annotations

from collections.abc import Sequence

import redis

AT_ONCE = 256
"""Commands sent before the answers to the ones before are read."""

COMPARE_AND_SET = """
if redis.call('GETRANGE', KEYS[1], 16, 23) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""Write a stream row unless another writer was faster. ARGV: the version bytes that were read ('' for no row), the row,
its life in milliseconds. Returns 1 when written."""

NEWER_WINS = """
local function times(row)
  local created = 0
  if math.floor(string.byte(row, 4) / 64) % 2 == 1 then created = struct.unpack('<i8', row, 25) end
  return struct.unpack('<i8', row, 17), created
end
local stored = redis.call('GETRANGE', KEYS[1], 0, 31)
if #stored >= 24 and string.sub(stored, 1, 3) == string.sub(ARGV[1], 1, 3)
   and string.byte(stored, 4) % 16 == string.byte(ARGV[1], 4) % 16
   and string.sub(stored, 9, 16) == string.sub(ARGV[1], 9, 16) then
  local event_time, created = times(stored)
  local new_event_time, new_created = times(ARGV[1])
  if event_time > new_event_time or (event_time == new_event_time and created > new_created) then return 0 end
end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
"""
"""Write a batch row unless the stored one has a newer event time, or the same and a later created time. A row of
another schema or format always gives way. ARGV: the row, its life in milliseconds or 0 for ever. Returns 1 when
written."""


def newer_wins(client: redis.Redis, keys: Sequence[bytes], rows: Sequence[bytes], life_ms: int) -> int:
    """Run NEWER_WINS for each key and row. Returns how many were written; the others were older.

    On a single server the commands are packed here, since a pipeline spends more on each command than this whole call
    does; and the next commands are sent before the answers to the last ones are read, so that the server never waits.
    """
    sha = client.script_load(NEWER_WINS)
    parts = [slice(begin, begin + AT_ONCE) for begin in range(0, len(keys), AT_ONCE)]
    if type(client) is not redis.Redis:
        return sum(_piped(client, sha, keys[part], rows[part], life_ms) for part in parts)
    before = b"*6\r\n$7\r\nEVALSHA\r\n" + _bulk(sha.encode()) + _bulk(b"1")
    after = _bulk(b"%d" % life_ms)
    connection = client.connection_pool.get_connection()
    written, unread = 0, 0
    try:
        for part in parts:
            commands = [
                before + _bulk(key) + _bulk(row) + after for key, row in zip(keys[part], rows[part], strict=True)
            ]
            connection.send_packed_command([b"".join(commands)])
            written += sum(int(connection.read_response()) for _ in range(unread))
            unread = len(commands)
        return written + sum(int(connection.read_response()) for _ in range(unread))
    except BaseException:
        connection.disconnect()  # answers that nobody read would be taken for those of the next command
        raise
    finally:
        client.connection_pool.release(connection)


def _piped(client: redis.Redis, sha: str, keys: Sequence[bytes], rows: Sequence[bytes], life_ms: int) -> int:
    pipeline = client.pipeline(transaction=False)  # that of a cluster blocks `evalsha` by name, and routes it by key
    for key, row in zip(keys, rows, strict=True):
        pipeline.execute_command("EVALSHA", sha, 1, key, row, life_ms)
    return sum(int(written) for written in pipeline.execute())


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)
