"""The protocol's JSON objects. Fields and parameters that are not known are passed over, as the protocol has it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from serving.decision import BATCH_MAX, Explain

ROWS_MAX = BATCH_MAX
"""Actors that one request may ask about."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Shape = Annotated[list[Annotated[int, Meta(ge=1, le=ROWS_MAX)]], Meta(min_length=1, max_length=2)]
Size = Annotated[int, Meta(ge=0)]


class InferenceError(Struct, frozen=True):
    """What was wrong."""

    error: str


class ServerMetadata(Struct, frozen=True):
    """The server, and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(Struct, frozen=True):
    """The process lives."""

    live: bool


class ServerReady(Struct, frozen=True):
    """Whether all models can answer now."""

    ready: bool


class ModelReady(Struct, frozen=True):
    """Whether one model can answer now."""

    name: str
    ready: bool


class TensorMetadata(Struct, frozen=True):
    """One tensor of a model; −1 stands for a length that differs between requests."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct, frozen=True):
    """A model: its inputs are join keys and request fields, which may be left out; its outputs those that it has."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InputParameters(Struct, frozen=True):
    """How the data of an input comes."""

    binary_data_size: Size | None = None
    shared_memory_region: str | None = None


class OutputParameters(Struct, frozen=True):
    """How an output is wanted."""

    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class RequestParameters(Struct, frozen=True):
    """What is said of a whole request. `explain` gives the outputs of an explanation without naming them."""

    binary_data_output: bool = False
    explain: Explain | None = None
    timeout: Annotated[int, Meta(ge=1, le=3_600_000_000, description="microseconds")] | None = None


class InputTensor(Struct, frozen=True):
    """One value for each actor: shape [N] or [N, 1]. `data` is left out when it follows the JSON as bytes."""

    name: Name
    shape: Shape
    datatype: str
    parameters: InputParameters = field(default_factory=InputParameters)
    data: list[Any] | None = None


class RequestedOutput(Struct, frozen=True):
    """An output by its name."""

    name: Name
    parameters: OutputParameters = field(default_factory=OutputParameters)


class InferenceRequest(Struct, frozen=True):
    """Which actors to score. Without `outputs`, score, margin and verdict are answered."""

    inputs: Annotated[list[InputTensor], Meta(min_length=1, max_length=256)]
    outputs: Annotated[list[RequestedOutput], Meta(max_length=64)] = []
    parameters: RequestParameters = field(default_factory=RequestParameters)
    id: Annotated[str, Meta(max_length=256)] | None = None


class AnsweredParameters(Struct, frozen=True):
    """How the data of an output comes."""

    binary_data_size: int


class OutputTensor(Struct, frozen=True, omit_defaults=True):
    """An output, row after row; null where there is no number. `data` is left out when it follows as bytes."""

    name: str
    shape: list[int]
    datatype: str
    parameters: AnsweredParameters | None = None
    data: list[Any] | None = None


class InferenceAnswer(Struct, frozen=True, omit_defaults=True):
    """The outputs that were asked for."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None
