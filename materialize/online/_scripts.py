"""The two writes, each atomic on the server."""

from __future__ import annotations

COMPARE_AND_SET = """
if redis.call('GETRANGE', KEYS[1], 16, 23) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""Write a stream row unless another writer was faster. ARGV: the version bytes that were read ('' for no row), the row,
its life in milliseconds. Returns 1 when written."""

NEWER_WINS = """
local stored = redis.call('GETRANGE', KEYS[1], 0, 39)
if #stored == 40 and string.sub(stored, 1, 4) == string.sub(ARGV[1], 1, 4)
   and string.sub(stored, 9, 16) == string.sub(ARGV[1], 9, 16) then
  local event_time, created = struct.unpack('<i8i8', stored, 25)
  local new_event_time, new_created = struct.unpack('<i8i8', ARGV[1], 25)
  if event_time > new_event_time or (event_time == new_event_time and created > new_created) then return 0 end
end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
"""
"""Write a batch row unless the stored one has a newer event time, or the same and a later created time. A row of
another schema or format always gives way. ARGV: the row, its life in milliseconds or 0 for ever. Returns 1 when
written."""
