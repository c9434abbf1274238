"""The tables of an explanation as a file that is mapped into memory: replicas on a machine share its pages.

    bytes 0–127   header, little-endian: magic, format, kind, base value, constant, lengths of both arrays, and the
                  SHA-256 of what the tables were made of
    then          int32[ints], then, from the next multiple of 64 on, float64[floats]: see `_layout`

Rows of tables lie on cache lines. The compiled loops do not test positions, so every number that is one is tested here:
a damaged or forged file is refused, it cannot make them read elsewhere.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models._arrays import Floats, Ints
from models._operators import DEPTH_MAX
from models.errors import BundleCorruptError
from models.explain import _layout as at
from models.explain._games import path_max
from models.explain._trees import INTERVENTIONAL, PATH_DEPENDENT, TreeTables

FORMAT = 1
_MAGIC = b"ARSHARES"
_HEADER = struct.Struct("<8sII2dQQ32s")
_KINDS = (INTERVENTIONAL, PATH_DEPENDENT)
_INTS_AT, _LINE = 128, 64


def encode_tables(tables: TreeTables, made_of: bytes) -> bytes:
    """The content of the file. `made_of` is a SHA-256 (32 bytes) of the model and the background."""
    header = _HEADER.pack(
        _MAGIC,
        FORMAT,
        _KINDS.index(tables.kind),
        tables.base_value,
        tables.constant,
        tables.ints.size,
        tables.floats.size,
        made_of,
    )
    ints = tables.ints.astype("<i4").tobytes()
    begin = _floats_at(tables.ints.size)
    return b"".join(
        [header.ljust(_INTS_AT, b"\0"), ints.ljust(begin - _INTS_AT, b"\0"), tables.floats.astype("<f8").tobytes()]
    )


def map_tables(path: Path) -> memoryview:
    """The file's bytes, mapped: nothing is read before it is needed. Raises OSError, ValueError for an empty file."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def decode_tables(content: memoryview | bytes, made_of: bytes) -> TreeTables:
    """The tables as views of the content. Raises BundleCorruptError for anything but what `encode_tables` wrote."""
    if len(content) < _INTS_AT:
        raise _refused("is too short")
    magic, form, kind, base_value, constant, ints_size, floats_size, source = _HEADER.unpack_from(content)
    if magic != _MAGIC or form != FORMAT:
        raise _refused(f"is not in format {FORMAT}")
    if source != made_of:
        raise _refused("was made for another model or background")
    begin = _floats_at(ints_size)
    if kind >= len(_KINDS) or ints_size < at.COUNTS or len(content) != begin + 8 * floats_size:
        raise _refused("has another length or kind than it says")
    ints = np.frombuffer(content, "<i4", ints_size, _INTS_AT).astype(np.int32, copy=False)
    floats = np.frombuffer(content, "<f8", floats_size, begin).astype(np.float64, copy=False)
    _check(ints, floats)
    ints.flags.writeable = floats.flags.writeable = False
    return TreeTables(_KINDS[kind], base_value, constant, ints, floats)


def _floats_at(ints_size: int) -> int:
    return _INTS_AT + (4 * ints_size + _LINE - 1) // _LINE * _LINE


def _refused(what: str) -> BundleCorruptError:
    return BundleCorruptError(f"the file of explanation tables {what}: restore it or publish the model again")


class _Sections:
    """Reads sections of `ints`, each checked to lie inside."""

    def __init__(self, ints: Ints, floats: Floats) -> None:
        self._ints, self._floats = ints, floats

    def __call__(self, begin: int, *shape: int) -> NDArray[np.int64]:
        size = int(np.prod(np.array(shape, object)))
        if min(shape) < 0 or begin < at.COUNTS or begin + size > self._ints.size:
            raise _refused("points outside of itself")
        return self._ints[begin : begin + size].astype(np.int64).reshape(shape)

    def of_floats(self, begin: int, size: int) -> None:
        if begin < 0 or size < 0 or begin + size > self._floats.size:
            raise _refused("points outside of itself")


def _within(values: NDArray[np.int64], end: int, begin: int = 0) -> None:
    if values.size and not (begin <= int(values.min()) and int(values.max()) < end):
        raise _refused("points outside of itself")


def _distinct(nodes: NDArray[np.int64]) -> None:
    if np.unique(nodes).size != nodes.size:
        raise _refused("has a node with two parents")


def _check(ints: Ints, floats: Floats) -> None:
    head = [int(n) for n in ints[: at.COUNTS]]
    section = _Sections(ints, floats)
    _check_slots(head, section, floats.size)
    depth = _check_upper(head, section)
    _check_buckets(head, section, depth, floats.size)
    _check_forests(head, section, ints)
    _check_leaves(head, section)


def _check_slots(head: list[int], section: _Sections, floats_size: int) -> None:
    if head[at.FEATURES] < 1 or head[at.SLOTS] != 2 * head[at.FEATURES] + head[at.SETS] + head[at.SPANS]:
        raise _refused("has another number of slots than it says")
    starts = section(head[at.THRESHOLDS], head[at.FEATURES] + 1)
    _within(starts, floats_size + 1)
    _within(np.diff(starts), floats_size + 1)
    sets = section(head[at.SETS_AT], head[at.SETS], at.SET_WIDTH)
    _within(sets[:, at.SET_FEATURE], head[at.FEATURES])
    _within(sets[:, at.SET_FIRST], floats_size)
    _within(sets[:, at.SET_COUNT], floats_size + 1)
    _within(sets[:, at.SET_FIRST] + sets[:, at.SET_COUNT], floats_size + 1)
    spans = section(head[at.SPANS_AT], head[at.SPANS], at.SPAN_WIDTH)
    _within(spans[:, at.SPAN_FEATURE], head[at.FEATURES])


def _check_upper(head: list[int], section: _Sections) -> NDArray[np.int64]:
    """How many tests stand above each child of an upper node, int64[1 + UPPER]; 0 above the roots."""
    parent, slot, _ = section(head[at.UPPER_AT], 3, head[at.UPPER])
    _within(slot, head[at.SLOTS])
    _within(parent, parent.size)
    _within(np.arange(parent.size) - parent, parent.size)
    depth = [0]
    for above in parent.tolist():
        depth.append(depth[above] + 1)
    return np.array(depth, np.int64)


def _check_buckets(head: list[int], section: _Sections, depth: NDArray[np.int64], floats_size: int) -> None:
    groups = 0
    for bucket in section(head[at.BUCKETS_AT], head[at.BUCKETS], at.BUCKET_WIDTH):
        own, features, count, first, stride = (int(n) for n in bucket[: at.BUCKET_PARENT_AT])
        parent = section(int(bucket[at.BUCKET_PARENT_AT]), count)
        _within(parent, depth.size)
        _within(section(int(bucket[at.BUCKET_SLOT_AT]), own, count), head[at.SLOTS])
        section(int(bucket[at.BUCKET_RANK_AT]), own, count)
        _within(section(int(bucket[at.BUCKET_FEATURE_AT]), count, features), head[at.FEATURES])
        tests = depth[parent] + own
        _within(tests, 31)
        _within(np.array([first - groups]), 1)
        _within(np.array([stride - features]), 2**31)
        table = section(int(bucket[at.BUCKET_TABLE_AT]), count)
        _within(table, floats_size)
        _within(table + (np.left_shift(1, tests) - 1) * stride + features, floats_size + 1)
        groups += count
    _within(np.array([head[at.GROUPS] - groups]), 1)


def _check_forests(head: list[int], section: _Sections, ints: Ints) -> None:
    """The whole forest is trees, and the rest is the same trees cut short: so no path of it is longer."""
    whole_roots, whole = _forest(head, section, at.WHOLE)
    rest_roots, rest = _forest(head, section, at.REST)
    slot, _, left, right = section(head[at.NODES_AT], 4, head[at.NODES])
    inner = whole >= 0
    _within(slot[inner], head[at.SLOTS])
    for child in (left, right):  # children come after their parents, so every way down ends
        _within(child[inner], head[at.NODES])
        _within((child - np.arange(head[at.NODES]))[inner], head[at.NODES], 1)
    _distinct(np.concatenate([whole_roots, left[inner], right[inner]]))  # else ways down double at every node
    _distinct(rest_roots)
    if not (np.isin(rest_roots, whole_roots).all() and ((rest == -1) | (rest == whole)).all()):
        raise _refused("has a forest of rest that is no part of the whole")
    longest = path_max(ints, at.WHOLE)
    if longest != head[at.PATH_MAX] or longest > DEPTH_MAX:  # the loops' memory grows with its square
        raise _refused("has paths of another length than it says, or too long ones")


def _forest(head: list[int], section: _Sections, forest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The roots, int64[trees], and the feature of each node, int64[NODES] (-1 where it ends)."""
    roots = section(head[forest + at.FOREST_ROOTS_AT], head[forest + at.FOREST_TREES])
    feature = section(head[forest + at.FOREST_FEATURE_AT], head[at.NODES])
    section.of_floats(head[forest + at.FOREST_VALUES_AT], head[at.NODES])
    _within(roots, head[at.NODES])
    _within(feature, head[at.FEATURES], -1)
    return roots, feature


def _check_leaves(head: list[int], section: _Sections) -> None:
    starts = section(head[at.LEAVES_AT], head[at.LEAVES] + 1)
    _within(np.diff(starts), head[at.PATH_MAX] + 1, 1)
    _within(starts, head[at.CONDITIONS] + 1)
    feature, first = section(head[at.CONDITIONS_AT], 2, head[at.CONDITIONS] + 1)
    _within(feature, head[at.FEATURES])
    _within(np.diff(first), head[at.TESTS] + 1)
    _within(first, head[at.TESTS] + 1)
    slot, _, _ = section(head[at.TESTS_AT], 3, head[at.TESTS])
    _within(slot, head[at.SLOTS])
    section.of_floats(head[at.RATIOS_AT], head[at.CONDITIONS])
    section.of_floats(head[at.LEAF_VALUES_AT], head[at.LEAVES])
