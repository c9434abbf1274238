"""Hashes made in compiled code are those of the library."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.kernel import hash_strings, hash_value


def hashed(strings: list[bytes], kind: type = np.int32) -> list[int]:
    offsets = np.cumsum([0, *map(len, strings)]).astype(kind)
    return hash_strings(np.frombuffer(b"".join(strings) or b"\0", np.uint8), offsets).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80)), st.sampled_from((np.int32, np.int64)))
def test_text_hashes_as_a_single_value_does(texts: list[str], kind: type) -> None:
    assert hashed([text.encode() for text in texts], kind) == [hash_value(text) for text in texts]


@pytest.mark.parametrize("seed", range(3))
def test_bytes_of_every_length_hash_as_the_library_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strings = [rng.bytes(length) for length in range(600)]
    assert hashed(strings) == [xxhash.xxh3_64_intdigest(string) for string in strings]
