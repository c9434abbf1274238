"""The Open Inference Protocol, version 2, with its binary tensors: what clients of KServe and Triton speak over HTTP.

https://github.com/kserve/open-inference-protocol, and Triton's `extension_binary_data.md` for the binary tensors.
"""

from serving.open_inference.api import OpenInference, is_ours, refusal
from serving.open_inference.contract import (
    InferenceAnswer,
    InferenceError,
    InferenceRequest,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from serving.open_inference.described import inference_error, inference_paths, inference_schemas

__all__ = [
    "InferenceAnswer",
    "InferenceError",
    "InferenceRequest",
    "ModelMetadata",
    "ModelReady",
    "OpenInference",
    "ServerLive",
    "ServerMetadata",
    "ServerReady",
    "inference_error",
    "inference_paths",
    "inference_schemas",
    "is_ours",
    "refusal",
]
