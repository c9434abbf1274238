"""Golden rows: inputs with the outputs that were true at publishing, computed anew at every load.

One Parquet file: a column `input/<ref>` and `attribution/<ref>` for each feature, and `margin` and `score`.
Every column is float64. How much a file holds is looked at before any of it is read.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models._arrays import Floats
from models.errors import BundleCorruptError, GoldenMismatchError, InputError
from models.explain import Explanation
from models.scorer import Scores

ROWS_MAX, VALUES_MAX = 100_000, 2**24
"""Of one file. A Parquet file of a few kilobytes can say that it holds billions of equal values."""
SCORE_TOLERANCE = 1e-9
ATTRIBUTION_TOLERANCE = 1e-6
SINGLE_SCORE_TOLERANCE = 1e-5
SINGLE_ATTRIBUTION_TOLERANCE = 1e-4
"""Largest allowed difference, absolute below 1 and relative above. In single precision, another processor's order of
adding up alone gives 1e-6."""


@dataclass(frozen=True, slots=True)
class Golden:
    """`values` float64[N, F] as they arrive (NaN: missing), `scores`, and `attributions` float64[N, F]."""

    values: Floats
    scores: Scores
    attributions: Floats

    def check(self, scores: Scores, explanation: Explanation, *, single_precision: bool) -> None:
        """Raises GoldenMismatchError when the outputs computed here differ from those published."""
        tolerance = SINGLE_SCORE_TOLERANCE if single_precision else SCORE_TOLERANCE
        _check("margin", self.scores.margin, scores.margin, tolerance)
        _check("score", self.scores.score, scores.score, tolerance)
        tolerance = SINGLE_ATTRIBUTION_TOLERANCE if single_precision else ATTRIBUTION_TOLERANCE
        _check("attribution", self.attributions, explanation.attributions, tolerance)


def _check(name: str, published: Floats, computed: Floats, tolerance: float) -> None:
    gaps = np.abs(published - computed) / np.maximum(np.abs(published), 1.0)
    if not np.all(gaps <= tolerance):
        raise GoldenMismatchError(
            f"golden rows: {name} differs by {np.nanmax(gaps):.3g} (allowed {tolerance:g}): this machine's libraries "
            "compute something else than the publisher's; compare `libraries` in manifest.json, or publish again here"
        )


def encode_golden(golden: Golden, refs: Sequence[str]) -> bytes:
    """The content of `golden.parquet`. Raises InputError for more than a file may hold."""
    return _to_parquet(
        "golden.parquet",
        {f"input/{ref}": golden.values[:, i] for i, ref in enumerate(refs)}
        | {"margin": golden.scores.margin, "score": golden.scores.score}
        | {f"attribution/{ref}": golden.attributions[:, i] for i, ref in enumerate(refs)},
    )


def decode_golden(content: bytes, refs: Sequence[str]) -> Golden:
    """Raises BundleCorruptError for anything but what `encode_golden` wrote, and for a file without rows."""
    table = _from_parquet("golden.parquet", content)
    if not table.num_rows:
        raise BundleCorruptError("golden.parquet has no rows, so it proves nothing: publish the model again with some")
    return Golden(
        _matrix("golden.parquet", table, [f"input/{ref}" for ref in refs]),
        Scores(*_matrix("golden.parquet", table, ["margin", "score"]).T),
        _matrix("golden.parquet", table, [f"attribution/{ref}" for ref in refs]),
    )


def encode_background(background: Floats, refs: Sequence[str]) -> bytes:
    """The content of `background.parquet`: float64[B, F], one column for each feature.

    Raises InputError for more than a file may hold.
    """
    return _to_parquet("background.parquet", {ref: background[:, i] for i, ref in enumerate(refs)})


def decode_background(content: bytes, refs: Sequence[str]) -> Floats:
    """Raises BundleCorruptError for anything but what `encode_background` wrote."""
    return _matrix("background.parquet", _from_parquet("background.parquet", content), refs)


def _to_parquet(name: str, columns: dict[str, Floats]) -> bytes:
    table = pa.table({column: pa.array(values, pa.float64()) for column, values in columns.items()})
    if not _fits(table.num_rows, table.num_columns):
        raise InputError(f"{name} would have {_too_much(table.num_rows, table.num_columns)}: give fewer rows")
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _from_parquet(name: str, content: bytes) -> pa.Table:
    """1. open the file, 2. look at what it says it holds, 3. read it."""
    try:
        with pq.ParquetFile(io.BytesIO(content)) as file:
            _check_contents(name, file)
            return file.read()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BundleCorruptError(f"{name} is no Parquet file ({error}): publish the model again") from error


def _check_contents(name: str, file: pq.ParquetFile) -> None:
    parts = sum(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
    rows, columns = max(file.metadata.num_rows, parts), file.metadata.num_columns
    if not _fits(rows, columns):
        raise BundleCorruptError(f"{name} has {_too_much(rows, columns)}: publish the model again with fewer rows")
    others = sorted({column.name for column in file.schema_arrow if column.type != pa.float64()})
    if others:
        raise BundleCorruptError(f"{name} has columns that are not float64, {others}: publish the model again")
    if len(set(file.schema_arrow.names)) != columns:
        raise BundleCorruptError(f"{name} has two columns of the same name: publish the model again")


def _fits(rows: int, columns: int) -> bool:
    return rows <= ROWS_MAX and rows * columns <= VALUES_MAX


def _too_much(rows: int, columns: int) -> str:
    return f"{rows:,} rows of {columns:,} columns (at most {ROWS_MAX:,} rows and {VALUES_MAX:,} values)"


def _matrix(name: str, table: pa.Table, columns: Sequence[str]) -> Floats:
    absent = sorted(set(columns) - set(table.column_names))
    if absent:
        raise BundleCorruptError(f"{name} lacks the columns {absent}: publish the model again")
    return np.column_stack([table.column(column).to_numpy().astype(np.float64) for column in columns])
