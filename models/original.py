"""The exporter's file as it came, run as it came up to its answer: what a graph in the served form must equal."""

from __future__ import annotations

import numpy as np
import onnx

from models._arrays import Floats
from models._wiring import up_to
from models.graph import GraphFacts, answer_name
from models.scorer import open_session


def answer_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """An exporter's graph without what is computed beside its answer. Raises UnsupportedModelError for no answer."""
    return up_to(model, answer_name(model))


class Original:
    """What `answer_of` leaves of an exporter's file, and the column of its answer that is served."""

    def __init__(self, model: onnx.ModelProto, facts: GraphFacts) -> None:
        """`facts` are those of the served form. Raises UnsupportedModelError when ONNX Runtime does not load it."""
        self._session = open_session(model.SerializeToString())
        self._facts = facts
        held = {tensor.name for tensor in model.graph.initializer}
        self._input = next(value.name for value in model.graph.input if value.name not in held)

    def scores(self, rows: Floats) -> Floats:
        """float64[N] for float64[N, F]: the probability of the served class, or the value."""
        with np.errstate(over="ignore"):
            fed = rows if self._facts.input_type == "double" else rows.astype(np.float32)
        answer = self._session.run(None, {self._input: fed})[0]
        if isinstance(answer, list):  # ZipMap's dictionaries, label to probability
            return np.array([self._of_labels(entry) for entry in answer], np.float64)
        columns = np.asarray(answer, np.float64).reshape(len(rows), -1)
        return np.ascontiguousarray(columns[:, min(self._facts.target, columns.shape[1] - 1)])

    def _of_labels(self, entry: dict[int | str, float]) -> float:
        return next(value for label, value in entry.items() if str(label) == self._facts.target_name)
