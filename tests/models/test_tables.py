"""The file of an explanation's tables: mapped as it was written, or refused; the same bytes from it everywhere."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import BundleCorruptError
from models._arrays import Ints
from models._operators import Members
from models.explain import InterventionalTrees, decode_tables, encode_tables, map_tables
from models.explain import _layout as at
from models.explain._trees import interventional_tables
from models.trees import Ensemble, TreeBuilder
from tests.models.builders import Floats, grown, with_holes


@functools.cache
def forged() -> tuple[bytes, Floats]:
    """A small file with sections of every kind (some leaves have no room in the tables), and rows."""
    builder = TreeBuilder()
    root, left, right = builder.reserve(), builder.reserve(), builder.reserve()
    builder.set_members(root, 3, Members((1.0, 2.0), True), True, left, right)
    builder.set_leaf(left, 1.0)
    builder.set_leaf(right, -1.0)
    rows = with_holes(np.random.default_rng(21), 9)
    ensemble = Ensemble(12, (*grown(22, trees=2, depth=5).trees, builder.build()))
    return encode_tables(interventional_tables(ensemble, rows, table_bytes_max=30_000), bytes(32)), rows


EXPLAIN_A_FILE = """
import sys, numpy as np
from pathlib import Path
from models.explain import decode_tables, map_tables
from models.explain._trees import InterventionalTrees
tables = decode_tables(map_tables(Path(sys.argv[1])), bytes(32))
rows = np.load(sys.argv[2])
explainer = InterventionalTrees(tables, rows[:5], "r")
for part in (rows, rows[:1]):
    sys.stdout.buffer.write(explainer.explain(part).attributions.tobytes())
"""


@pytest.mark.soak
def test_another_processor_and_number_of_threads_give_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(17)
    matrix = with_holes(rng, 70)
    tables = interventional_tables(grown(18), matrix[:5])
    (tmp_path / "tables.bin").write_bytes(encode_tables(tables, bytes(32)))
    np.save(tmp_path / "rows.npy", matrix)
    command = [sys.executable, "-c", EXPLAIN_A_FILE, str(tmp_path / "tables.bin"), str(tmp_path / "rows.npy")]
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    plain = {**cache, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_NUM_THREADS": "1"}
    answers = {
        subprocess.run(command, env=os.environ | extra, stdout=subprocess.PIPE, check=True).stdout
        for extra in ({}, plain, {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"})
    }
    explainer = InterventionalTrees(tables, matrix[:5], "r")
    here = explainer.explain(matrix).attributions.tobytes() + explainer.explain(matrix[:1]).attributions.tobytes()
    assert answers == {here}


def test_tables_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    matrix = with_holes(np.random.default_rng(19), 9)
    tables = interventional_tables(grown(20), matrix)
    (tmp_path / "t").write_bytes(encode_tables(tables, b"a" * 32))
    back = decode_tables(map_tables(tmp_path / "t"), b"a" * 32)
    assert (back.kind, back.base_value, back.constant) == (tables.kind, tables.base_value, tables.constant)
    np.testing.assert_array_equal(back.ints, tables.ints)
    np.testing.assert_array_equal(back.floats, tables.floats)
    with pytest.raises(BundleCorruptError, match="another model or background"):
        decode_tables(map_tables(tmp_path / "t"), b"b" * 32)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_forged_file_of_tables_is_refused_or_stays_within_itself(data: st.DataObject) -> None:
    """Any one number changed: no crash. (Bundles also check the file's hash; this is about who can forge that.)"""
    content = bytearray(forged()[0])
    ints = np.frombuffer(content, "<i4", int.from_bytes(forged()[0][32:40], "little"), 128)
    where = data.draw(st.integers(0, ints.size - 1) | st.integers(0, 31))
    ints[where] = data.draw(st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 40))
    try:
        tables = decode_tables(bytes(content), bytes(32))
    except BundleCorruptError:
        return
    shares = InterventionalTrees(tables, forged()[1][:2], "r")
    shares.explain(forged()[1])
    shares.explain(forged()[1][:1])
    shares.explain_probability(forged()[1][:1])


@pytest.mark.parametrize("cut", [0, 7, 127, 128, 1000, -8, -1])
def test_a_file_of_tables_that_was_cut_is_refused(cut: int) -> None:
    with pytest.raises(BundleCorruptError, match="restore it or publish"):
        decode_tables(forged()[0][:cut], bytes(32))


def with_ints(content: bytes, change: Callable[[Ints], None]) -> bytes:
    """The file with its integers changed in place."""
    changed = bytearray(content)
    change(np.frombuffer(changed, "<i4", int.from_bytes(content[32:40], "little"), 128))
    return bytes(changed)


def section(ints: Ints, where: int, size: int) -> Ints:
    return ints[ints[where] : ints[where] + size]


def rest_reads_another_feature(ints: Ints) -> None:
    rest = section(ints, at.REST_FEATURE_AT, ints[at.NODES])
    node = np.flatnonzero(rest >= 0)[0]
    rest[node] = (rest[node] + 1) % ints[at.FEATURES]


def rest_goes_on_below_a_leaf(ints: Ints) -> None:
    whole, rest = (section(ints, where, ints[at.NODES]) for where in (at.WHOLE_FEATURE_AT, at.REST_FEATURE_AT))
    rest[np.flatnonzero(whole < 0)[0]] = 0


def rest_has_longer_paths(ints: Ints) -> None:
    """Each node tests another feature: more on a path than PATH_MAX, which the loops allot memory for."""
    rest = section(ints, at.REST_FEATURE_AT, ints[at.NODES])
    whole = section(ints, at.WHOLE_FEATURE_AT, ints[at.NODES])
    rest[whole >= 0] = np.arange(np.count_nonzero(whole >= 0)) % ints[at.FEATURES]


def rest_begins_below_a_root(ints: Ints) -> None:
    section(ints, at.REST_ROOTS_AT, 1)[0] += 1


@pytest.mark.parametrize(
    "change",
    [
        rest_reads_another_feature,
        rest_goes_on_below_a_leaf,
        rest_has_longer_paths,
        rest_begins_below_a_root,
    ],
)
def test_a_forest_of_rest_that_is_no_part_of_the_whole_is_refused(change: Callable[[Ints], None]) -> None:
    with pytest.raises(BundleCorruptError, match="no part of the whole"):
        decode_tables(with_ints(forged()[0], change), bytes(32))


@pytest.mark.parametrize("more", [-1, 1])
def test_a_longest_path_that_is_not_the_longest_is_refused(more: int) -> None:
    """The loops' memory grows with its square."""

    def change(ints: Ints) -> None:
        ints[at.PATH_MAX] += more

    with pytest.raises(BundleCorruptError, match="another length"):
        decode_tables(with_ints(forged()[0], change), bytes(32))


@pytest.mark.parametrize("parent", [-1, -2, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("node", [0, -1])
def test_an_upper_node_below_no_earlier_one_is_refused(node: int, parent: int) -> None:
    def change(ints: Ints) -> None:
        parents = section(ints, at.UPPER_AT, ints[at.UPPER])
        assert parents.size > 2
        parents[node] = parent

    with pytest.raises(BundleCorruptError, match="points outside"):
        decode_tables(with_ints(forged()[0], change), bytes(32))


def vine(inner: int) -> Ensemble:
    """One tree whose inner nodes stand one below the other."""
    builder = TreeBuilder()
    node = builder.reserve()
    for i in range(inner):
        left, right = builder.reserve(), builder.reserve()
        builder.set_split(node, 0, float(i), True, left, right)
        builder.set_leaf(left, float(i))
        node = right
    builder.set_leaf(node, -1.0)
    return Ensemble(1, (builder.build(),))


def test_nodes_that_share_children_are_refused_at_once() -> None:
    """Both sides of each of 45 nodes lead to the next one: 2^45 ways down."""

    def change(ints: Ints) -> None:
        _, _, left, right = section(ints, at.NODES_AT, 4 * ints[at.NODES]).reshape(4, -1)
        left[:] = right

    content = encode_tables(interventional_tables(vine(45), np.zeros((1, 1))), bytes(32))
    assert decode_tables(content, bytes(32)).feature_count == 1
    with pytest.raises(BundleCorruptError, match="two parents"):
        decode_tables(with_ints(content, change), bytes(32))


@pytest.mark.parametrize("forest", [at.WHOLE, at.REST])
def test_a_tree_that_stands_there_twice_is_refused(forest: int) -> None:
    def change(ints: Ints) -> None:
        roots = section(ints, forest + at.FOREST_ROOTS_AT, ints[forest])
        roots[1] = roots[0]

    with pytest.raises(BundleCorruptError, match="two parents"):
        decode_tables(with_ints(forged()[0], change), bytes(32))
