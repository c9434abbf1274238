"""A served model as tensors: what it takes, and what of a decision it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import msgspec
import numpy as np

from materialize.online import ReadPlan
from serving.decision import Decision, Explain, ScoreRequest
from serving.errors import InvalidFieldError
from serving.loading import ServedModel
from serving.open_inference.contract import InferenceRequest, ModelMetadata, TensorMetadata
from serving.open_inference.tensors import BYTES, Array, values_of

PLATFORM = "actor-risk_onnx"

_DATATYPES = {
    "STRING": BYTES,
    "INT": "INT64",
    "INT32": "INT32",
    "INT64": "INT64",
    "FLOAT": "FP32",
    "DOUBLE": "FP64",
    "BOOL": "BOOL",
}
"""Feast's value types, those that `serving.fields` reads → the protocol's."""

_DEPTHS: Sequence[Explain] = ("none", "top", "full")

Decisions = Sequence[Decision]


@dataclass(frozen=True, slots=True)
class Output:
    """One output of every model. `depth`: the explanation that it needs; `of` gives its values for N decisions."""

    datatype: str
    depth: Explain
    shape: Callable[[ServedModel], list[int]]
    of: Callable[[Decisions, ServedModel], Array]
    is_default: bool = True
    """Whether it is answered, at its depth, without being asked for by name."""


def _floats(field: Callable[[Decision], float | None]) -> Callable[[Decisions, ServedModel], Array]:
    def of(decisions: Decisions, _served: ServedModel) -> Array:
        values = (field(decision) for decision in decisions)
        return np.array([math.nan if value is None else value for value in values], np.float64)

    return of


def _words(field: Callable[[Decision], str]) -> Callable[[Decisions, ServedModel], Array]:
    def of(decisions: Decisions, _served: ServedModel) -> Array:
        return np.array([field(decision) for decision in decisions], np.object_)

    return of


def _attributions(decisions: Decisions, served: ServedModel) -> Array:
    """float64[N, F], NaN where a decision has none: no time to explain, or made by a model without the feature."""
    rows = ({f.feature: f.attribution for f in decision.features or []} for decision in decisions)
    return np.array([[row.get(feature.ref, math.nan) for feature in served.features] for row in rows], np.float64)


def _feature_names(_decisions: Decisions, served: ServedModel) -> Array:
    return np.array([feature.ref for feature in served.features], np.object_)


def _reason_codes(decisions: Decisions, _served: ServedModel) -> Array:
    """object[N, most reasons], strongest first, filled up with empty words."""
    return _ragged([[reason.code for reason in decision.reasons] for decision in decisions], "", np.object_)


def _reason_attributions(decisions: Decisions, _served: ServedModel) -> Array:
    """float64[N, most reasons], filled up with NaN."""
    return _ragged([[reason.attribution for reason in d.reasons] for d in decisions], math.nan, np.float64)


def _ragged(rows: Sequence[Sequence[Any]], filling: Any, dtype: type) -> Array:
    columns = list(zip_longest(*rows, fillvalue=filling))
    return np.array(columns, dtype).reshape(len(columns), len(rows)).T


def _rows(_served: ServedModel) -> list[int]:
    return [-1]


def _rows_by_reasons(_served: ServedModel) -> list[int]:
    return [-1, -1]


def _rows_by_features(served: ServedModel) -> list[int]:
    return [-1, len(served.features)]


def _features(served: ServedModel) -> list[int]:
    return [len(served.features)]


OUTPUTS: Mapping[str, Output] = {
    "score": Output("FP64", "none", _rows, _floats(lambda decision: decision.score)),
    "margin": Output("FP64", "none", _rows, _floats(lambda decision: decision.margin)),
    "verdict": Output(BYTES, "none", _rows, _words(lambda decision: decision.verdict)),
    "degraded": Output(BYTES, "none", _rows, _words(lambda decision: ",".join(decision.degraded)), False),
    "decision_id": Output(BYTES, "none", _rows, _words(lambda decision: decision.decision_id), False),
    "model_version": Output(BYTES, "none", _rows, _words(lambda decision: decision.model.version), False),
    "base_value": Output("FP64", "top", _rows, _floats(lambda decision: decision.base_value)),
    "reason_codes": Output(BYTES, "top", _rows_by_reasons, _reason_codes),
    "reason_attributions": Output("FP64", "top", _rows_by_reasons, _reason_attributions),
    "attributions": Output("FP64", "full", _rows_by_features, _attributions),
    "feature_names": Output(BYTES, "full", _features, _feature_names),
}


def metadata_of(served: ServedModel) -> ModelMetadata:
    """What a model takes and gives."""
    plan = served.plan
    outputs = [TensorMetadata(name, output.datatype, output.shape(served)) for name, output in OUTPUTS.items()]
    inputs = [TensorMetadata(name, datatype, [-1]) for name, datatype in _input_types(plan).items()]
    return ModelMetadata(served.card.name, [served.card.version], PLATFORM, inputs, outputs)


def _input_types(plan: ReadPlan) -> dict[str, str]:
    kinds = {key.name: key.kind for key in plan.join_keys} | {field.name: field.kind for field in plan.request_fields}
    return {name: _DATATYPES[kind] for name, kind in kinds.items()}


def wanted_outputs(request: InferenceRequest) -> dict[str, bool]:
    """The outputs that a request asks for → whether as bytes. Raises InvalidFieldError for one that there is not."""
    parameters = request.parameters
    if not request.outputs:
        depth = _DEPTHS.index(parameters.explain or "none")
        names = [name for name, one in OUTPUTS.items() if one.is_default and _DEPTHS.index(one.depth) <= depth]
        return dict.fromkeys(names, parameters.binary_data_output)
    wanted: dict[str, bool] = {}
    for n, output in enumerate(request.outputs):
        where = f"outputs[{n}]"
        if output.name not in OUTPUTS:
            raise InvalidFieldError(f"no output {output.name!r}; there are {', '.join(OUTPUTS)}", f"{where}.name")
        if output.parameters.classification or output.parameters.shared_memory_region:
            raise InvalidFieldError("there is no classification and no shared memory here", f"{where}.parameters")
        said = output.parameters.binary_data
        wanted[output.name] = parameters.binary_data_output if said is None else said
    return wanted


def explain_for(request: InferenceRequest, wanted: Mapping[str, bool]) -> Explain:
    """The explanation that the outputs need, or a deeper one that the request names."""
    depths = [OUTPUTS[name].depth for name in wanted]
    return max([request.parameters.explain or "none", *depths], key=_DEPTHS.index)


def questions_of(
    request: InferenceRequest, binary: Sequence[memoryview | None], served: ServedModel, explain: Explain
) -> list[ScoreRequest]:
    """One question for each row. Raises InvalidFieldError for tensors that do not fit the model or each other."""
    types = _input_types(served.plan)
    columns: dict[str, list[Any]] = {}
    for n, (tensor, data) in enumerate(zip(request.inputs, binary, strict=True)):
        where = f"inputs[{n}]"
        if tensor.name not in types or tensor.name in columns:
            told = "given twice" if tensor.name in columns else f"unknown; this model takes {', '.join(types)}"
            raise InvalidFieldError(f"{tensor.name!r} is {told}", f"{where}.name")
        if tensor.datatype != types[tensor.name]:
            told = f"{tensor.name!r} has the datatype {types[tensor.name]}, not {tensor.datatype!r}"
            raise InvalidFieldError(told, f"{where}.datatype")
        columns[tensor.name] = values_of(tensor, data, where)
    if len({len(column) for column in columns.values()}) > 1:
        raise InvalidFieldError("all inputs must have the same number of rows", "inputs")
    encoded = {name: [msgspec.Raw(msgspec.json.encode(value)) for value in column] for name, column in columns.items()}
    keys = [key.name for key in served.plan.join_keys if key.name in encoded]
    fields = [field.name for field in served.plan.request_fields if field.name in encoded]
    return [
        ScoreRequest(
            model=served.card.name,
            entities={name: encoded[name][row] for name in keys},
            request={name: encoded[name][row] for name in fields},
            explain=explain,
        )
        for row in range(len(next(iter(encoded.values()))))
    ]
