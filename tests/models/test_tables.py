"""The file of an explanation's tables: mapped as it was written, or refused; the same bytes from it everywhere."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import BundleCorruptError
from models._operators import Members
from models.explain import InterventionalTrees, decode_tables, encode_tables, map_tables
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
