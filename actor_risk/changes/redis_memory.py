"""How much memory Redis takes for a key and its value, as `MEMORY USAGE` says, and its share of the tables.

A key of Valkey 8 and later lies within its object: 16 bytes of object, 8 for when it expires, and the key as a short
string, of which 1 byte says how long its header is, 3 are the header and 1 ends it. The value is a string of its own:
3, 5 or 9 bytes of header by its length, and 1 at its end. Source: `object.c`, `sds.h` and `hashtable.c` of Valkey 9.
The allocator gives blocks of 16 · n + 8 bytes (glibc's malloc, which the embedded server is built with). One that is
built with jemalloc has blocks a fifth apart, and takes a tenth more on average.
"""

from __future__ import annotations

OBJECT, EXPIRES, KEY_HEADER = 16, 8, 5
VALUE_HEADERS = ((1 << 8, 3), (1 << 16, 5), (1 << 32, 9))
BLOCK, BLOCK_HEAD, BLOCK_MIN = 16, 8, 24
TABLE_SHARE = 12
"""A table has buckets of 64 bytes for 7 keys, and is between 39 % and 77 % full after it has grown: 9 / 0.77 at best.
A key that expires is in two tables."""


def entry_bytes(key_bytes: int, value_bytes: int, *, expires: bool = True) -> int:
    """What `MEMORY USAGE` says of a string of so many bytes under a key of so many."""
    header = next(size for limit, size in VALUE_HEADERS if value_bytes < limit)
    entry = OBJECT + (EXPIRES if expires else 0) + KEY_HEADER + key_bytes
    return _block(entry) + _block(header + value_bytes + 1)


def table_bytes(*, expires: bool = True) -> int:
    """What the tables take for a key, about."""
    return TABLE_SHARE * (2 if expires else 1)


def _block(size: int) -> int:
    """The usable bytes of the block that is given for so many."""
    return max(BLOCK_MIN, -(-(size + BLOCK_HEAD) // BLOCK) * BLOCK - BLOCK_HEAD)
