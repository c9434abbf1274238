"""How to train, and the file that says so: YAML, TOML or JSON with the fields of `TrainSettings` as keys."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from models.errors import TrainingError

MODELS_KEY = "models"
"""The key of a file below which each model may have values of its own."""
_READERS: dict[str, Callable[[str], Any]] = {
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".toml": tomllib.loads,
    ".json": json.loads,
}


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train; docs/howto/train-a-model.md says what each field does.

    Shares are of the time span; the last one is the test, the one before it tunes calibration and thresholds.
    The fields from `trees` to `bins` mean the same to every trainer.
    """

    trainer: Literal["lightgbm", "xgboost"] = "lightgbm"
    test_share: float = 0.2
    tune_share: float = 0.1
    trees: int = 150
    leaves: int = 31
    depth: int = 6
    learning_rate: float = 0.06
    leaf_rows_min: int = 50
    l1: float = 0.0
    l2: float = 1.0
    split_gain_min: float = 0.0
    feature_share: float = 0.8
    row_share: float = 1.0
    bins: int = 255
    positive_weight: float | Literal["balanced"] = 1.0
    categorical: tuple[str, ...] = ()
    calibration: Literal["none", "platt", "isotonic"] = "none"
    review_precision: float = 0.5
    review_per_day: float | None = None
    block_precision: float = 0.9
    flagged_min: int = 20
    seed: int = 7
    threads: int = 2
    background_rows: int = 100
    golden_rows: int = 32

    def __post_init__(self) -> None:
        """Raises TrainingError for settings that contradict each other, and for infinity and NaN."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainingError(f"{name} must be a finite number, got {value}")
        if self.test_share <= 0 or self.tune_share <= 0 or self.test_share + self.tune_share >= 1:
            raise TrainingError("test_share and tune_share must be above 0 and leave time to fit: try 0.2 and 0.1")
        if not 0 < self.review_precision <= self.block_precision <= 1:
            raise TrainingError("precisions need 0 < review_precision <= block_precision <= 1")
        if self.review_per_day is not None and not self.review_per_day > 0:
            raise TrainingError("review_per_day must be above 0: how many cases can be looked at in a day?")
        if self.positive_weight != "balanced" and not self.positive_weight > 0:
            raise TrainingError("positive_weight must be a number above 0, or 'balanced'")
        for name in ("trees", "background_rows", "golden_rows", "leaf_rows_min", "threads"):
            _at_least(self, name, 1)
        for name in ("leaves", "bins"):
            _at_least(self, name, 2)
        for name in ("l1", "l2", "split_gain_min", "flagged_min", "seed"):
            _at_least(self, name, 0)
        for name in ("learning_rate", "feature_share", "row_share"):
            if not 0 < getattr(self, name) <= 1:
                raise TrainingError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if not 1 <= self.depth <= 64:
            raise TrainingError(f"depth must be 1 to 64, got {self.depth}")


def read_settings(path: Path, model: str = "", **given: Any) -> TrainSettings:
    """The settings of a file for one model: what is `given` goes before the model's own values below `models`, and
    these before the file's.

    Raises TrainingError for a file that is not there or not of its format, an unknown key (with the nearest one that
    there is), or a value of a wrong type or size.
    """
    content = _content(path)
    own = content.pop(MODELS_KEY, None) or {}
    if not isinstance(own, dict) or not all(isinstance(values, dict) for values in own.values()):
        raise TrainingError(f"{path.name}: {MODELS_KEY!r} maps names of models to their values")
    _check_keys(path, content, "")
    for name, values in own.items():
        _check_keys(path, values, f"{MODELS_KEY}.{name}.")
    try:
        return msgspec.convert(content | own.get(model, {}) | given, TrainSettings)
    except msgspec.ValidationError as error:
        raise TrainingError(f"{path.name}: {error}; docs/howto/train-a-model.md lists the types") from error
    except TrainingError as error:
        raise TrainingError(f"{path.name}: {error}") from error


def models_named(path: Path) -> tuple[str, ...]:
    """The models that have values of their own in a settings file. Raises TrainingError as `read_settings` does."""
    read_settings(path)
    return tuple(_content(path).get(MODELS_KEY) or ())


def _at_least(settings: TrainSettings, name: str, least: int) -> None:
    if not getattr(settings, name) >= least:
        raise TrainingError(f"{name} must be at least {least}, got {getattr(settings, name)}")


def _content(path: Path) -> dict[str, Any]:
    if path.suffix.lower() not in _READERS:
        raise TrainingError(f"{path.name} is none of {', '.join(_READERS)}: the ending says how to read the file")
    try:
        content = _READERS[path.suffix.lower()](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # TOML's and JSON's errors are ValueErrors
        raise TrainingError(f"{path.name} is not {path.suffix[1:].upper()}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise TrainingError(f"{path.name} holds no keys with values: write for example `trees: 300`")
    return content


def _check_keys(path: Path, content: dict[str, Any], place: str) -> None:
    known = [*TrainSettings.__struct_fields__, *([] if place else [MODELS_KEY])]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise TrainingError(f"{path.name}: no setting {place}{key}; {advice}")
