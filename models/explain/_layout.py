"""How an ensemble lies in memory for the compiled loops: two arrays, int32 and float64, as they stand in the file.

    ints     header of COUNTS numbers, then sections; the header says where each begins
    floats   thresholds, set members, tables of shares, values of leaves

A row is first turned into *slots*, one integer each, so that every later test is `slots[s] <= rank`:

    2 f, 2 f + 1   how many thresholds of feature f lie below the value; for NaN above all ranks in the first (a test
                   sends it right), below all in the second (left)
    then           one for each set of members, 0 when the value is in it, else 1
    then           one for each span, 0 when the value lies in the span of ranks, else 1
"""

from __future__ import annotations

(
    FEATURES,
    SINGLE,  # whether rows are rounded to float32
    SLOTS,
    THRESHOLDS,  # int32[F + 1], where in floats the thresholds of each feature begin
    SETS,
    SETS_AT,  # int32[SETS, SET_WIDTH]
    SPANS,
    SPANS_AT,  # int32[SPANS, SPAN_WIDTH]
    UPPER,
    UPPER_AT,  # int32[3, UPPER]: parent, slot, rank of the nodes above the groups, parents first
    BUCKETS,
    BUCKETS_AT,  # int32[BUCKETS, BUCKET_WIDTH]
    GROUPS,
    NODES,
    NODES_AT,  # int32[4, NODES]: slot, rank, left, right
    WHOLE,  # the forest of all leaves, FOREST_WIDTH numbers
    WHOLE_ROOTS_AT,
    WHOLE_FEATURE_AT,
    WHOLE_VALUES_AT,
    REST,  # the forest of the leaves outside of the tables; for a path-dependent explanation it has none
    REST_ROOTS_AT,
    REST_FEATURE_AT,
    REST_VALUES_AT,
    PATH_MAX,  # the most distinct features on one path
    LEAVES,  # leaves outside of the tables, one by one; for an interventional explanation there are none
    LEAVES_AT,  # int32[LEAVES + 1], the first condition of each leaf
    LEAF_VALUES_AT,
    CONDITIONS,
    CONDITIONS_AT,  # int32[2, CONDITIONS + 1]: feature; first test
    RATIOS_AT,  # where in floats the ratio of each condition begins
    TESTS,
    TESTS_AT,  # int32[3, TESTS]: slot, rank, whether it must go left
) = range(32)

COUNTS = 32

FOREST_TREES, FOREST_ROOTS_AT, FOREST_FEATURE_AT, FOREST_VALUES_AT = range(4)
"""A forest: how many trees, int32[trees] roots, int32[NODES] feature (-1 where it ends), where its values begin."""

SET_FEATURE, SET_FLAGS, SET_FIRST, SET_COUNT, SET_WIDTH = range(5)
MISSING_LEFT, BY_INTEGER_PART = 1, 2

SPAN_FEATURE, SPAN_ABOVE, SPAN_UP_TO, SPAN_MISSING, SPAN_WIDTH = range(5)

(
    BUCKET_OWN,  # nodes of each group, besides those above it
    BUCKET_FEATURES,  # shares of each pattern
    BUCKET_COUNT,
    BUCKET_FIRST,  # number of the first group
    BUCKET_STRIDE,  # distance of patterns in the table
    BUCKET_PARENT_AT,  # int32[count], 1 + the upper node above, or 0
    BUCKET_SLOT_AT,  # int32[own, count]
    BUCKET_RANK_AT,  # int32[own, count]
    BUCKET_TABLE_AT,  # int32[count], where in floats the table of each group begins
    BUCKET_FEATURE_AT,  # int32[count, features]
    BUCKET_WIDTH,
) = range(11)

RIGHT_OF_ALL, LEFT_OF_ALL = 2**31 - 1, -1
"""Slots of a missing value: above and below every rank."""
