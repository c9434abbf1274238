"""Triton's own HTTP clients, as they are installed, against our server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from serving.decision import Decision
from tests.serving.fakes import FEATURES, SERVICE, World, loaded_world
from tests.support.listening import listening, posted

IPS = ["203.0.113.9", "nobody", "zoë"]


@pytest.fixture(scope="module")
def served(published: Path) -> World:
    return loaded_world(published)


@pytest.fixture(scope="module")
def address(served: World) -> Iterator[str]:
    with listening(served.app) as url:
        yield url.removeprefix("http://")


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address, concurrency=4) as found:
        yield found


def inputs(*, binary: bool, shape: tuple[int, ...] = (3,)) -> list[Any]:
    columns = {
        "ip": np.array(IPS, np.object_),
        "device_id": np.array(["dev-1"] * 3, np.object_),
        "attempts": np.array([1, 2, 2**40], np.int64),
        "ms_since_impression": np.array([180.0, np.nan if binary else 0.0, 3.5]),
    }
    found = []
    for name, column in columns.items():
        datatype = {"O": "BYTES", "i": "INT64", "f": "FP64"}[column.dtype.kind]
        tensor = triton.InferInput(name, list(shape), datatype)
        tensor.set_data_from_numpy(column.reshape(shape), binary_data=binary)
        found.append(tensor)
    return found


def test_the_client_finds_the_server_and_its_model(client: Any, served: World) -> None:
    version = served.service.cards()[0].version
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(SERVICE)
    assert client.is_model_ready(SERVICE, version)
    assert not client.is_model_ready(SERVICE, "1")
    assert not client.is_model_ready("unheard")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(SERVICE)
    assert metadata["versions"] == [version]
    assert [one["name"] for one in metadata["inputs"]][:2] == ["ip", "device_id"]
    assert client.get_model_metadata(SERVICE, version) == metadata


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_the_client_gets_scores(client: Any, address: str, binary: bool, shape: tuple[int, ...]) -> None:
    answer = client.infer(SERVICE, inputs(binary=binary, shape=shape), request_id="42")
    assert answer.get_response()["id"] == "42"
    scores = answer.as_numpy("score")
    assert (scores.shape, scores.dtype) == ((3,), np.float64)
    asked = {"model": SERVICE, "entities": {"ip": IPS[0], "device_id": "dev-1"}}
    known = msgspec.json.decode(posted(f"http://{address}/v1/score", asked), type=Decision)
    assert scores[0] == known.score
    assert answer.as_numpy("verdict")[0].decode() == known.verdict
    assert answer.as_numpy("attributions") is None


@pytest.mark.parametrize("binary", [True, False])
def test_the_client_gets_explanations(client: Any, binary: bool) -> None:
    names = ["margin", "base_value", "attributions", "feature_names", "reason_codes", "reason_attributions"]
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    answer = client.infer(SERVICE, inputs(binary=True), outputs=wanted)
    attributions = answer.as_numpy("attributions")
    assert attributions.shape == (3, len(FEATURES))
    np.testing.assert_allclose(answer.as_numpy("base_value") + attributions.sum(axis=1), answer.as_numpy("margin"))
    names_found = [name.decode() if isinstance(name, bytes) else name for name in answer.as_numpy("feature_names")]
    assert names_found == list(FEATURES)
    assert answer.as_numpy("reason_codes").shape == answer.as_numpy("reason_attributions").shape == (3, 5)
    asked = client.infer(SERVICE, inputs(binary=True), parameters={"explain": "full"})
    np.testing.assert_array_equal(asked.as_numpy("attributions"), attributions)


def test_many_requests_of_the_client_at_once_are_all_answered(client: Any) -> None:
    waiting = [client.async_infer(SERVICE, inputs(binary=True)) for _ in range(20)]
    scores = [one.get_result().as_numpy("score") for one in waiting]
    assert all(np.array_equal(one, scores[0]) for one in scores)


def test_the_client_is_told_what_was_wrong(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"\[404\].*no version '1'"):
        client.infer(SERVICE, inputs(binary=True), model_version="1")
    with pytest.raises(InferenceServerException, match=r"\[400\].*missing: give entities.device_id"):
        client.infer(SERVICE, inputs(binary=True)[:1])
    with pytest.raises(InferenceServerException, match=r"\[415\].*uncompressed"):
        client.infer(SERVICE, inputs(binary=True), request_compression_algorithm="gzip")
    with pytest.raises(InferenceServerException, match=r"\[404\].*nothing lives"):
        client.get_model_config(SERVICE)


def test_the_asyncio_client_works_too(address: str) -> None:
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            answer = await client.infer(SERVICE, inputs(binary=True), outputs=[triton.InferRequestedOutput("score")])
            assert answer.as_numpy("score").shape == (3,)

    asyncio.run(ask())
