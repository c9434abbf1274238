"""XXH3 of many strings at once, from the buffers that columns keep them in: the hot form of `hash_values`.

64 bits, without seed and with the default secret, as the XXH3 specification has it for inputs of up to 240 bytes
(https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md). Longer ones are hashed by the library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash
from numba import njit

from materialize.kernel._partials import Hashes

LONGEST = 240
"""Bytes of the longest string that the compiled form hashes."""

_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
        "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
        "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    np.uint8,
)
_PRIME64_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME64_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME64_3 = np.uint64(0x165667B19E3779F9)
_MIX_1 = np.uint64(0x165667919E3779F9)
_MIX_2 = np.uint64(0x9FB21C651E98DF25)
_LOW = np.uint64(0xFFFFFFFF)


def hash_strings(data: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any]) -> Hashes:
    """The hash of each string, uint64[n], equal to `hash_value` of it.

    data: uint8, all strings in UTF-8 one after the other. offsets: int32 or int64[n + 1], where each begins.
    """
    out = np.empty(len(offsets) - 1, np.uint64)
    if _hash_all(data, offsets, _SECRET, out):
        for place in np.flatnonzero(np.diff(offsets) > LONGEST).tolist():
            out[place] = xxhash.xxh3_64_intdigest(data[offsets[place] : offsets[place + 1]].tobytes())
    out[out == 0] = 1
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _read64(data, at):  # type: ignore[no-untyped-def]
    word = np.uint64(0)
    for i in range(8):
        word |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return word


@njit(cache=True, nogil=True, error_model="numpy")
def _read32(data, at):  # type: ignore[no-untyped-def]
    word = np.uint64(0)
    for i in range(4):
        word |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return word


@njit(cache=True, nogil=True, error_model="numpy")
def _rotated(word, bits):  # type: ignore[no-untyped-def]
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@njit(cache=True, nogil=True, error_model="numpy")
def _swapped(word):  # type: ignore[no-untyped-def]
    """The bytes of a word in the other order."""
    out = np.uint64(0)
    for i in range(8):
        out |= ((word >> np.uint64(8 * i)) & np.uint64(255)) << np.uint64(56 - 8 * i)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _folded_product(a, b):  # type: ignore[no-untyped-def]
    """The two halves of the 128-bit product, one xor the other."""
    half = np.uint64(32)
    low = (a & _LOW) * (b & _LOW)
    middle_1 = (a >> half) * (b & _LOW)
    middle_2 = (a & _LOW) * (b >> half)
    carried = (low >> half) + (middle_1 & _LOW) + middle_2
    high = (a >> half) * (b >> half) + (middle_1 >> half) + (carried >> half)
    return high ^ ((carried << half) | (low & _LOW))


@njit(cache=True, nogil=True, error_model="numpy")
def _avalanche(word):  # type: ignore[no-untyped-def]
    word ^= word >> np.uint64(37)
    word *= _MIX_1
    return word ^ (word >> np.uint64(32))


@njit(cache=True, nogil=True, error_model="numpy")
def _avalanche_64(word):  # type: ignore[no-untyped-def]
    """As XXH64 ends."""
    word ^= word >> np.uint64(33)
    word *= _PRIME64_2
    word ^= word >> np.uint64(29)
    word *= _PRIME64_3
    return word ^ (word >> np.uint64(32))


@njit(cache=True, nogil=True, error_model="numpy")
def _mixed(data, at, secret, secret_at):  # type: ignore[no-untyped-def]
    """Sixteen bytes of the string with sixteen of the secret."""
    return _folded_product(
        _read64(data, at) ^ _read64(secret, secret_at), _read64(data, at + 8) ^ _read64(secret, secret_at + 8)
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _short(data, at, size, secret):  # type: ignore[no-untyped-def]
    """Up to 16 bytes."""
    length = np.uint64(size)
    if size > 8:
        low = _read64(data, at) ^ _read64(secret, 24) ^ _read64(secret, 32)
        high = _read64(data, at + size - 8) ^ _read64(secret, 40) ^ _read64(secret, 48)
        return _avalanche(length + _swapped(low) + high + _folded_product(low, high))
    if size >= 4:
        word = _read32(data, at + size - 4) + (_read32(data, at) << np.uint64(32))
        word ^= _read64(secret, 8) ^ _read64(secret, 16)
        word ^= _rotated(word, 49) ^ _rotated(word, 24)
        word *= _MIX_2
        word ^= (word >> np.uint64(35)) + length
        word *= _MIX_2
        return word ^ (word >> np.uint64(28))
    if size > 0:
        first, middle, last = np.uint64(data[at]), np.uint64(data[at + size // 2]), np.uint64(data[at + size - 1])
        word = (first << np.uint64(16)) | (middle << np.uint64(24)) | last | (length << np.uint64(8))
        return _avalanche_64(word ^ _read32(secret, 0) ^ _read32(secret, 4))
    return _avalanche_64(_read64(secret, 56) ^ _read64(secret, 64))


@njit(cache=True, nogil=True, error_model="numpy")
def _long(data, at, size, secret):  # type: ignore[no-untyped-def]
    """From 17 to 240 bytes."""
    total = np.uint64(size) * _PRIME64_1
    if size <= 128:
        for pair in range((size - 1) // 32, -1, -1):
            total += _mixed(data, at + 16 * pair, secret, 32 * pair)
            total += _mixed(data, at + size - 16 * (pair + 1), secret, 32 * pair + 16)
        return _avalanche(total)
    for part in range(8):
        total += _mixed(data, at + 16 * part, secret, 16 * part)
    total = _avalanche(total)
    for part in range(8, size // 16):
        total += _mixed(data, at + 16 * part, secret, 16 * (part - 8) + 3)
    return _avalanche(total + _mixed(data, at + size - 16, secret, 119))


@njit(cache=True, nogil=True, error_model="numpy")
def _hash_all(data, offsets, secret, out):  # type: ignore[no-untyped-def]
    """Write the hash of each string that is not too long to `out`. Returns how many are."""
    longer = 0
    for i in range(len(out)):
        at = np.int64(offsets[i])
        size = np.int64(offsets[i + 1]) - at
        if size <= 16:
            out[i] = _short(data, at, size, secret)
        elif size <= LONGEST:
            out[i] = _long(data, at, size, secret)
        else:
            longer += 1
    return longer
