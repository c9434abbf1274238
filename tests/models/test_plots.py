"""Explanations as shap's own objects, and as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import Explanation, InputError
from models.plots import draw

NAMES = ("ip_clicks_5m", "How much this IP clicks, and how many of its impressions it clicks on", "age")
SHARES = np.array([[1.5, -0.5, 0.25], [0.5, 0.75, -1.0], [0.0, 0.25, 0.5]])
VALUES = np.array([[40.0, np.nan, 3.0], [2.0, 1.0, 9.0], [0.0, 5.0, 4.0]])
EXPLANATION = Explanation(-2.0, SHARES, "three rows", "log_odds")
MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml"}


def test_an_explanation_is_shaps_with_names_values_and_base_values() -> None:
    shares = EXPLANATION.to_shap(NAMES, VALUES)
    np.testing.assert_array_equal(shares.values, SHARES)
    np.testing.assert_array_equal(shares.base_values, [-2.0] * 3)
    np.testing.assert_array_equal(shares.data, VALUES)
    assert tuple(shares.feature_names) == NAMES
    assert shares[0].base_values + shares[0].values.sum() == -0.75


@pytest.mark.parametrize(("rows", "data", "suffix"), [(1, True, ".png"), (1, False, ".svg"), (3, False, ".png")])
def test_one_row_and_several_are_drawn(tmp_path: Path, rows: int, data: bool, suffix: str) -> None:
    target = tmp_path / f"why{suffix}"
    explanation = Explanation(-2.0, SHARES[:rows], "three rows", "log_odds")
    draw(explanation, NAMES, VALUES[:rows] if data else None, target, title="a model\na decision", features_max=3)
    content = target.read_bytes()
    assert content.startswith(MAGIC[suffix])
    assert len(content) > 5_000


def test_other_kinds_of_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        draw(EXPLANATION, NAMES, VALUES, tmp_path / "why.gif", title="", features_max=3)
