"""Explanations as pictures, drawn by shap's own plots. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from models._arrays import Floats
from models.errors import InputError, MissingExtraError
from models.explain import Explanation

SUFFIXES = (".png", ".svg")
_DOTS_PER_INCH = 150
_NAME_WIDTH = 40


def draw(
    explanation: Explanation, names: Sequence[str], data: Floats | None, target: Path, *, title: str, features_max: int
) -> None:
    """Writes a waterfall of one row, a beeswarm of several, as PNG or SVG by the name of `target`.

    `names` of the F features, `data` float64[N, F] or None; the `features_max` - 1 strongest features are drawn alone,
    the others as one.
    Raises InputError for another kind of file, MissingExtraError without the extra `plots`.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"{target.name}: pictures end in {' or '.join(SUFFIXES)}")
    shares = explanation.to_shap([fill(name, _NAME_WIDTH) for name in names], data)
    try:
        import matplotlib.pyplot as plt
        import shap
    except ImportError as error:
        raise MissingExtraError("matplotlib is not installed: `pip install 'actor-risk[plots]'`") from error
    plt.switch_backend("Agg")
    figure = plt.figure()
    try:
        if len(explanation.attributions) == 1:
            axes = shap.plots.waterfall(shares[0], max_display=features_max, show=False)
        else:
            axes = shap.plots.beeswarm(shares, max_display=features_max, show=False)
            axes.set_xlabel(f"share of the margin ({explanation.output_space})")
        axes.set_title(title, fontsize=11, loc="left", pad=28)
        figure.savefig(target, dpi=_DOTS_PER_INCH, bbox_inches="tight")
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}") from error
    finally:
        plt.close(figure)
