"""The Lua scripts of the Redis consumer: each reads and writes at one instant, by the server's own clock."""

JOIN = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
"""Renew the membership of ARGV[1] in KEYS[1] for ARGV[2] ms; the names of all who are members now."""

CLAIM = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return false end
local position = redis.call('GET', KEYS[2])
if not position then
  position = '0-0'
  if ARGV[3] ~= '-' then
    local newest = redis.call('XREVRANGE', KEYS[3], ARGV[3], '-', 'COUNT', 1)
    if newest[1] then position = newest[1][1] end
    redis.call('SET', KEYS[2], position)
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {owner and 1 or 0, position}
"""
"""Take or renew the lease KEYS[1] for ARGV[1] for ARGV[2] ms: whether it was held before, and the group's position
KEYS[2], if there is none yet the newest entry of the stream KEYS[3] up to ARGV[3] (`-`: before all); nil if another one
holds the lease."""

COMMIT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
"""Set the position KEYS[2] to ARGV[2] if ARGV[1] holds the lease KEYS[1]: 1 if done."""

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
"""Give up the lease KEYS[1] if ARGV[1] holds it."""

FIRST_IDS = """
local ids = {}
for i, stream in ipairs(KEYS) do
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  ids[i] = first and first[1] or ''
end
return ids
"""
"""The id of the oldest entry of each stream, empty where there is none."""

SPAN = """
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return {redis.call('XLEN', KEYS[1]), first and first[1] or '0-0', last and last[1] or '0-0'}
"""
"""The length of the stream KEYS[1], and the ids of its oldest and newest entry."""

COUNT_PAGE = """
local page = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
return {#page, #page > 0 and page[#page][1] or ARGV[1]}
"""
"""How many of the next ARGV[2] entries after ARGV[1] there are, and the id of the last of them."""
