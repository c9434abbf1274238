"""Columns of a table: values as they are, hashes as the values have them, whatever way Arrow keeps strings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materialize.events import columns_from_table, hashes_from_table
from materialize.kernel import hash_values

WORDS = st.lists(st.none() | st.sampled_from(["", "a", "ü", "x" * 300]) | st.text(max_size=20), max_size=40)
KINDS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(WORDS, max_size=3), cut=st.integers(0, 5))
def test_strings_and_their_hashes_are_the_values(parts: list[list[str | None]], cut: int, kind: pa.DataType) -> None:
    chunks = [pa.array(part, pa.string()).cast(kind) for part in parts]
    column = pa.chunked_array(chunks, kind).slice(cut)
    table = pa.table({"word": column})
    values = columns_from_table(table)["word"]
    assert values.tolist() == column.to_pylist()
    np.testing.assert_array_equal(hashes_from_table(table, ["word", "absent"])["word"], hash_values(values))


def test_words_that_come_again_are_one_object() -> None:
    values = columns_from_table(pa.table({"word": ["long enough to be told apart", None] * 50}))["word"]
    assert len({id(value) for value in values}) == 2


def test_a_dictionary_may_fill_its_smallest_kind_of_index() -> None:
    words = [f"w{i}" for i in range(128)]
    table = pa.table({"word": pa.array([*words, None]).cast(pa.dictionary(pa.int8(), pa.string()))})
    values = columns_from_table(table)["word"]
    assert values.tolist() == [*words, None]
    np.testing.assert_array_equal(hashes_from_table(table, ["word"])["word"], hash_values(values))


def test_numbers_are_left_to_the_values() -> None:
    assert hashes_from_table(pa.table({"number": [1.0]}), ["number"]) == {}
