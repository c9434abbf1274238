"""Score rows with ONNX Runtime, on one thread: a request is small, and a hop between threads costs more than it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from models._arrays import Floats, as_matrix
from models.errors import UnsupportedModelError
from models.graph import LOG_ODDS, PROBABILITY, SPACE_PROPERTY, VALUE
from models.trees import FEATURES, MARGIN, SCORE

_LOG_ERRORS_ONLY = 3
"""Converters declare shapes that their graphs do not keep; ONNX Runtime would warn of it with every batch."""
_INPUT_TYPES = {"tensor(float)": "float", "tensor(double)": "double"}


@dataclass(frozen=True, slots=True)
class Scores:
    """`margin` float64[N] in the model's output space and `score` float64[N], row by row; see `models.graph`."""

    margin: Floats
    score: Floats


class Scorer:
    """One loaded graph in the served form: `features` float or double [N, F] to `margin` and `score`, both double.

    That scores follow from margins is for whoever loads a bundle to see to: `models.bundle.check_outputs`.
    """

    def __init__(self, content: bytes) -> None:
        """Raises UnsupportedModelError when the graph does not load or has other inputs and outputs."""
        self._session = open_session(content)
        self.feature_count, self.input_type = _checked_input(self._session)
        space = self._session.get_modelmeta().custom_metadata_map.get(SPACE_PROPERTY, LOG_ODDS)
        # A margin that is the score already is computed and copied out once.
        self._outputs = [MARGIN] if space in (PROBABILITY, VALUE) else [MARGIN, SCORE]

    def score(self, matrix: Floats) -> Scores:
        """Scores of float64[N, F], NaN for a missing value, read as float32 by a float graph.

        Raises InputError for another width.
        """
        rows = as_matrix(matrix, self.feature_count)
        if not len(rows):
            return Scores(np.empty(0), np.empty(0))
        outputs = self._session.run(self._outputs, {FEATURES: self._fed(rows)})
        return Scores(outputs[0].reshape(-1), outputs[-1].reshape(-1))

    def margin(self, matrix: Floats) -> Floats:
        """Margins alone, float64[N], of float64[N, F]."""
        rows = as_matrix(matrix, self.feature_count)
        margins: Floats = self._session.run([MARGIN], {FEATURES: self._fed(rows)})[0].reshape(-1)
        return margins

    def _fed(self, rows: Floats) -> Any:
        if self.input_type == "double":
            return rows
        with np.errstate(over="ignore"):  # beyond float32 is infinity, as the graph would have it
            return rows.astype(np.float32)


def open_session(content: bytes) -> ort.InferenceSession:
    """A session on one thread that writes no warnings. Raises UnsupportedModelError when the graph does not load."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_ERRORS_ONLY
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise UnsupportedModelError(f"ONNX Runtime does not load the graph ({error}): export it again") from error


def _checked_input(session: ort.InferenceSession) -> tuple[int, str]:
    """Width and element type of the input."""
    inputs = [value.name for value in session.get_inputs()]
    outputs = {value.name: value.type for value in session.get_outputs()}
    entries = [value for value in session.get_inputs() if value.type in _INPUT_TYPES and len(value.shape) == 2]
    known = inputs == [FEATURES] and len(entries) == 1
    if not known or any(outputs.get(name) != "tensor(double)" for name in (MARGIN, SCORE)):
        raise UnsupportedModelError(
            f"a served graph has one input {FEATURES!r} float or double [N, F] and outputs {MARGIN!r} and {SCORE!r}, "
            f"both double; this one has inputs {inputs} and outputs {sorted(outputs)}: "
            "import it with `actor-risk models import`"
        )
    width = entries[0].shape[1]
    if not isinstance(width, int) or width < 1:
        raise UnsupportedModelError(f"the input {FEATURES!r} has no fixed width: export it with its number of features")
    return width, _INPUT_TYPES[entries[0].type]
