"""Tensors as they travel: in JSON, or as little-endian bytes behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from serving.errors import InvalidFieldError, MalformedBodyError
from serving.fields import decode_json
from serving.open_inference.contract import (
    AnsweredParameters,
    InferenceAnswer,
    InferenceRequest,
    InputTensor,
    OutputTensor,
)

HEADER_LENGTH = "inference-header-content-length"
"""The header field that says how many bytes of a body are JSON, when tensors follow it."""

BYTES = "BYTES"
_DTYPES: Mapping[str, str] = {"BOOL": "?", "INT32": "<i4", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}
_PREFIX_BYTES = 4

Array = np.ndarray[Any, np.dtype[Any]]
_REQUEST_DECODER = msgspec.json.Decoder(InferenceRequest)


def decode_body(body: bytes, json_bytes: str | None) -> tuple[InferenceRequest, list[memoryview | None]]:
    """The request of a body, and for each of its inputs the bytes that follow the JSON, None where it has `data`.

    json_bytes: the header field. Raises MalformedBodyError or InvalidFieldError.
    """
    length = _json_length(json_bytes, len(body))
    view = memoryview(body)
    request: InferenceRequest = decode_json(_REQUEST_DECODER, msgspec.Raw(view[:length]))
    return request, list(_slices(request.inputs, view[length:]))


def _json_length(said: str | None, body_bytes: int) -> int:
    if said is None:
        return body_bytes
    if not (said.isascii() and said.isdigit() and len(said) <= len(str(body_bytes)) and int(said) <= body_bytes):
        raise MalformedBodyError(f"the header {HEADER_LENGTH} must say how many of the {body_bytes} bytes are JSON")
    return int(said)


def _slices(inputs: Sequence[InputTensor], binary: memoryview) -> Iterator[memoryview | None]:
    """Raises InvalidFieldError unless the inputs use up the bytes."""
    sizes = [tensor.parameters.binary_data_size for tensor in inputs]
    announced = sum(size or 0 for size in sizes)
    if announced != len(binary):
        raise InvalidFieldError(f"{len(binary)} bytes follow the JSON, but the inputs announce {announced}", "inputs")
    start = 0
    for size in sizes:
        yield None if size is None else binary[start : start + size]
        start += size or 0


def values_of(tensor: InputTensor, binary: memoryview | None, where: str) -> list[Any]:
    """One value for each row: str, int, float, bool, or None where JSON says null. Raises InvalidFieldError."""
    rows = tensor.shape[0]
    if tensor.shape[1:] not in ([], [1]):
        raise InvalidFieldError(f"the shape must be [{rows}] or [{rows}, 1], not {tensor.shape}", f"{where}.shape")
    if tensor.parameters.shared_memory_region is not None:
        raise InvalidFieldError("there is no shared memory here: send the data", f"{where}.parameters")
    if (binary is None) == (tensor.data is None):
        raise InvalidFieldError("give either data or binary_data_size, with the bytes behind the JSON", where)
    values = _from_json(tensor.data or []) if binary is None else _from_bytes(tensor.datatype, rows, binary, where)
    if len(values) != rows:
        raise InvalidFieldError(f"{len(values)} values for the shape {tensor.shape}", f"{where}.data")
    return values


def _from_json(data: list[Any]) -> list[Any]:
    """Flat, or one list for each row. What is neither goes on as it is, and is refused as a value."""
    return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]


def _from_bytes(datatype: str, rows: int, binary: memoryview, where: str) -> list[Any]:
    if datatype == BYTES:
        return list(_words(rows, binary, where))
    dtype = np.dtype(_DTYPES[datatype])
    if len(binary) != rows * dtype.itemsize:
        told = f"{len(binary)} bytes, but {rows} × {datatype} are {rows * dtype.itemsize}"
        raise InvalidFieldError(told, f"{where}.parameters.binary_data_size")
    array: Array = np.frombuffer(binary, dtype)
    values: list[Any] = array.tolist()
    return values


def _words(rows: int, binary: memoryview, where: str) -> Iterator[str]:
    """The elements of a BYTES tensor: four bytes of length, then so many bytes."""
    start = 0
    for _ in range(rows):
        begin = start + _PREFIX_BYTES
        end = begin + int.from_bytes(binary[start:begin], "little")
        if end > len(binary):
            raise InvalidFieldError(f"the bytes end before {rows} elements do", where)
        try:
            yield str(binary[begin:end], "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidFieldError(f"not UTF-8: {error}", where) from error
        start = end
    if start != len(binary):
        raise InvalidFieldError(f"{len(binary) - start} bytes are left behind {rows} elements", where)


def tensor_of(name: str, datatype: str, array: Array, *, binary: bool) -> tuple[OutputTensor, bytes]:
    """An output and the bytes that follow the JSON for it, none unless `binary`."""
    shape = list(array.shape)
    if not binary:
        return OutputTensor(name, shape, datatype, data=array.ravel().tolist()), b""
    data = _bytes_of(array) if datatype == BYTES else array.astype(_DTYPES[datatype]).tobytes()
    return OutputTensor(name, shape, datatype, AnsweredParameters(len(data))), data


def _bytes_of(array: Array) -> bytes:
    encoded = [word.encode() for word in array.ravel().tolist()]
    return b"".join(len(word).to_bytes(_PREFIX_BYTES, "little") + word for word in encoded)


def encode_body(answer: InferenceAnswer, parts: Sequence[bytes]) -> tuple[bytes, int | None]:
    """A body, and how many bytes of it are JSON; None when all are."""
    json = msgspec.json.encode(answer)
    if all(tensor.parameters is None for tensor in answer.outputs):
        return json, None
    return b"".join((json, *parts)), len(json)
