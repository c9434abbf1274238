"""Score rows with ONNX Runtime, on one thread: a request is small, and a hop between threads costs more than it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from models._arrays import Floats, as_matrix
from models.errors import UnsupportedModelError
from models.trees import FEATURES, MARGIN, SCORE

_LOG_ERRORS_ONLY = 3


@dataclass(frozen=True, slots=True)
class Scores:
    """`margin` float64[N] in log-odds and `score` float64[N] in 0 to 1, row by row."""

    margin: Floats
    score: Floats


class Scorer:
    """One loaded ONNX graph with the input `features` double[N, F] and the outputs `margin` and `score`."""

    def __init__(self, content: bytes) -> None:
        """Raises UnsupportedModelError when the graph does not load or has other inputs and outputs."""
        self._session = _open(content)
        self.feature_count = _checked_width(self._session)

    def score(self, matrix: Floats) -> Scores:
        """Scores of float64[N, F], NaN for a missing value. Raises InputError for another width."""
        rows = as_matrix(matrix, self.feature_count)
        if not len(rows):
            return Scores(np.empty(0), np.empty(0))
        margin, score = self._session.run([MARGIN, SCORE], {FEATURES: rows})
        return Scores(margin.reshape(-1), score.reshape(-1))


def _open(content: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_ERRORS_ONLY
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise UnsupportedModelError(f"ONNX Runtime does not load the graph ({error}): export it again") from error


def _checked_width(session: ort.InferenceSession) -> int:
    inputs = [value.name for value in session.get_inputs()]
    outputs = {value.name: value.type for value in session.get_outputs()}
    entries = [value for value in session.get_inputs() if value.type == "tensor(double)" and len(value.shape) == 2]
    known = inputs == [FEATURES] and len(entries) == 1
    if not known or any(outputs.get(name) != "tensor(double)" for name in (MARGIN, SCORE)):
        raise UnsupportedModelError(
            f"a served graph has one input {FEATURES!r} double[N, F] and outputs {MARGIN!r} (log-odds) and {SCORE!r}, "
            f"both double; this one has inputs {inputs} and outputs {sorted(outputs)}"
        )
    width = entries[0].shape[1]
    if not isinstance(width, int) or width < 1:
        raise UnsupportedModelError(f"the input {FEATURES!r} has no fixed width: export it with its number of features")
    return width
