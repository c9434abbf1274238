"""Golden rows: inputs with the outputs that were true at publishing, computed anew at every load.

One Parquet file: a column `input/<ref>` and `attribution/<ref>` for each feature, and `margin` and `score`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models._arrays import Floats
from models.errors import BundleCorruptError, GoldenMismatchError
from models.explain import Explanation
from models.scorer import Scores

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
    """The content of `golden.parquet`."""
    return _to_parquet(
        {f"input/{ref}": golden.values[:, i] for i, ref in enumerate(refs)}
        | {"margin": golden.scores.margin, "score": golden.scores.score}
        | {f"attribution/{ref}": golden.attributions[:, i] for i, ref in enumerate(refs)}
    )


def decode_golden(content: bytes, refs: Sequence[str]) -> Golden:
    """Raises BundleCorruptError when columns are missing, or for a file that is no Parquet."""
    table = _from_parquet("golden.parquet", content)
    return Golden(
        _matrix("golden.parquet", table, [f"input/{ref}" for ref in refs]),
        Scores(*_matrix("golden.parquet", table, ["margin", "score"]).T),
        _matrix("golden.parquet", table, [f"attribution/{ref}" for ref in refs]),
    )


def encode_background(background: Floats, refs: Sequence[str]) -> bytes:
    """The content of `background.parquet`: float64[B, F], one column for each feature."""
    return _to_parquet({ref: background[:, i] for i, ref in enumerate(refs)})


def decode_background(content: bytes, refs: Sequence[str]) -> Floats:
    """Raises BundleCorruptError when columns are missing, or for a file that is no Parquet."""
    return _matrix("background.parquet", _from_parquet("background.parquet", content), refs)


def _to_parquet(columns: dict[str, Floats]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(values, pa.float64()) for name, values in columns.items()}), buffer)
    return buffer.getvalue()


def _from_parquet(name: str, content: bytes) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise BundleCorruptError(f"{name} is no Parquet file ({error}): publish the model again") from error


def _matrix(name: str, table: pa.Table, columns: Sequence[str]) -> Floats:
    absent = sorted(set(columns) - set(table.column_names))
    if absent:
        raise BundleCorruptError(f"{name} lacks the columns {absent}: publish the model again")
    return np.column_stack([table.column(column).to_numpy().astype(np.float64) for column in columns])
