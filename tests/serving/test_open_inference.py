"""The Open Inference Protocol: what it answers, byte by byte, and what it refuses. Triton's client is next door."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from materialize.definitions import JoinKey
from materialize.online import OnlineStoreUnavailableError
from serving.decision_files import DecisionFiles, FileLimits
from serving.openapi import openapi_document
from tests.serving.fakes import CHAMPION, FEATURES, KEYS, NOW_MS, SERVICE, Answer, World, build_world, plan

MODEL = f"/v2/models/{SERVICE}"
LENGTH = "inference-header-content-length"
IPS = ["203.0.113.9", "nobody", "198.51.100.7"]


def tensor(name: str, data: list[Any], datatype: str = "BYTES", shape: Any = None) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def request(ips: list[str] = IPS, **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor("ip", ips), tensor("device_id", ["dev-1"] * len(ips))], **more}


def infer(world: World, body: Any, headers: dict[str, str] | None = None, model: str = MODEL) -> Answer:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return asyncio.run(world.call("POST", f"{model}/infer", data, headers))


def outputs(answer: Answer) -> dict[str, Any]:
    """Name → flat data, of an answer in JSON."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def get(world: World, path: str) -> Answer:
    return asyncio.run(world.call("GET", path))


def error(answer: Answer) -> str:
    body: dict[str, str] = answer.json()
    assert body.keys() == {"error"}
    return body["error"]


def test_the_server_says_who_it_is_and_whether_it_can_answer(shared_world: World, empty_world: World) -> None:
    assert get(shared_world, "/v2").json()["extensions"] == ["binary_tensor_data"]
    assert get(shared_world, "/v2/health/live").json() == {"live": True}
    assert get(shared_world, "/v2/health/ready").json() == {"ready": True}
    assert get(shared_world, f"{MODEL}/ready").json() == {"name": SERVICE, "ready": True}
    away = get(empty_world, "/v2/health/ready")
    assert (away.status, away.json()) == (503, {"ready": False})
    assert get(empty_world, "/v2/health/live").status == 200


def test_a_model_is_not_ready_while_features_cannot_be_read(world: World) -> None:
    world.features.failure = OnlineStoreUnavailableError("away")
    answer = get(world, f"{MODEL}/ready")
    assert (answer.status, answer.json()["ready"]) == (503, False)
    refused = infer(world, request())
    assert (refused.status, error(refused)) == (503, "away")
    assert refused.headers["retry-after"] == "1"


def test_a_models_inputs_are_its_join_keys_and_request_fields(shared_world: World) -> None:
    metadata = get(shared_world, MODEL).json()
    assert {one["name"]: one["datatype"] for one in metadata["inputs"]} == {
        "ip": "BYTES",
        "device_id": "BYTES",
        "ms_since_impression": "FP64",
        "attempts": "INT64",
        "country": "BYTES",
    }
    shapes = {one["name"]: one["shape"] for one in metadata["outputs"]}
    assert shapes["score"] == [-1]
    assert shapes["attributions"] == [-1, len(FEATURES)]
    assert shapes["feature_names"] == [len(FEATURES)]


def test_a_version_is_there_under_its_own_path_and_no_other(shared_world: World) -> None:
    version = shared_world.service.cards()[0].version
    served = f"{MODEL}/versions/{version}"
    assert get(shared_world, served).json() == get(shared_world, MODEL).json()
    assert get(shared_world, f"{served}/ready").status == 200
    assert infer(shared_world, request(), model=served).json()["model_version"] == version
    for path in (f"{MODEL}/versions/1", f"{MODEL}/versions/1/ready", "/v2/models/unheard", "/v2/models/unheard/ready"):
        answer = get(shared_world, path)
        assert answer.status == 404
        assert "served" in error(answer)
    assert infer(shared_world, request(), model=f"{MODEL}/versions/1").status == 404


def test_rows_are_scored_as_single_requests_are(world: World) -> None:
    answer = infer(world, request(id="mine"))
    assert (answer.json()["id"], answer.json()["model_name"]) == ("mine", SERVICE)
    found = outputs(answer)
    assert found.keys() == {"score", "margin", "verdict"}
    for row, ip in enumerate(IPS):
        alone = asyncio.run(world.score({"model": SERVICE, "entities": {**KEYS, "ip": ip}})).decision()
        assert [found[name][row] for name in ("score", "margin", "verdict")] == [
            alone.score,
            alone.margin,
            alone.verdict,
        ]


def test_many_rows_take_few_rounds(world: World) -> None:
    outputs(infer(world, request([f"ip-{n}" for n in range(320)])))
    assert len(world.features.reads) == 320
    assert world.features.rounds <= 11


@pytest.mark.parametrize("data", [["a", "b"], [["a"], ["b"]]])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_a_column_may_be_flat_or_nested(world: World, data: list[Any], shape: list[int]) -> None:
    outputs(infer(world, {"inputs": [tensor("ip", data, shape=shape), tensor("device_id", ["d", "e"])]}))
    assert [read.entities for read in world.features.reads] == [
        {"ip": "a", "device_id": "d"},
        {"ip": "b", "device_id": "e"},
    ]


def test_request_fields_may_be_left_out_and_nothing_counts_as_missing(world: World) -> None:
    fields = [tensor("attempts", [3, None], "INT64"), tensor("ms_since_impression", [180.5, 2], "FP64")]
    body = request(["a", "b"])
    outputs(infer(world, {"inputs": [*body["inputs"], *fields]}))
    assert [read.request for read in world.features.reads] == [
        {"ms_since_impression": 180.5, "attempts": 3, "country": None},
        {"ms_since_impression": 2.0, "attempts": None, "country": None},
    ]


def test_explanations_are_further_outputs(shared_world: World) -> None:
    found = outputs(infer(shared_world, request(parameters={"explain": "full"})))
    for row, ip in enumerate(IPS):
        body = {"model": SERVICE, "entities": {**KEYS, "ip": ip}, "explain": "full"}
        alone = asyncio.run(shared_world.score(body)).decision()
        assert alone.features is not None
        width = len(FEATURES)
        assert found["attributions"][row * width : (row + 1) * width] == [f.attribution for f in alone.features]
        assert found["base_value"][row] == alone.base_value
        codes = found["reason_codes"][row * 5 : (row + 1) * 5]
        assert [code for code in codes if code] == [reason.code for reason in alone.reasons]
        assert found["base_value"][row] + sum(found["attributions"][row * width : (row + 1) * width]) == pytest.approx(
            found["margin"][row]
        )
    assert found["feature_names"] == list(FEATURES)


def test_an_output_brings_the_explanation_that_it_needs_and_only_that(world: World) -> None:
    wanted = [{"name": "reason_codes"}, {"name": "degraded"}, {"name": "model_version"}, {"name": "decision_id"}]
    found = outputs(infer(world, request(outputs=wanted)))
    assert found.keys() == {"reason_codes", "degraded", "model_version", "decision_id"}
    assert found["degraded"] == ["", "", ""]
    assert found["model_version"] == [world.service.cards()[0].version] * 3
    assert len(set(found["decision_id"])) == 3


def test_each_row_is_a_decision_in_the_log(published: Path, tmp_path: Path) -> None:
    log = DecisionFiles(tmp_path, "w0", FileLimits(folder_bytes_max=100 << 20), lambda: NOW_MS)
    world = build_world(published, log)
    asyncio.run(world.service.load(CHAMPION))
    outputs(infer(world, request()))
    log.close()
    assert log.counts().logged == 3


def binary_body(columns: dict[str, tuple[str, list[int], bytes]], **more: Any) -> tuple[bytes, dict[str, str]]:
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, (datatype, shape, data) in columns.items()
    ]
    json = msgspec.json.encode({"inputs": inputs, **more})
    return json + b"".join(data for _, _, data in columns.values()), {LENGTH: str(len(json))}


def words(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(value.encode())) + value.encode() for value in values)


def test_tensors_come_and_go_as_little_endian_bytes(world: World) -> None:
    columns = {
        "ip": ("BYTES", [2], words("zoë", "b")),
        "device_id": ("BYTES", [2, 1], words("d", "e")),
        "attempts": ("INT64", [2], struct.pack("<qq", 2**62 + 1, -1)),
        "ms_since_impression": ("FP64", [2], struct.pack("<dd", 0.1, float("nan"))),
    }
    wanted = [
        {"name": "score", "parameters": {"binary_data": True}},
        {"name": "margin"},
        {"name": "verdict", "parameters": {"binary_data": True}},
    ]
    body, headers = binary_body(columns, outputs=wanted)
    answer = infer(world, body, headers)
    assert [(read.entities["ip"], read.request["attempts"]) for read in world.features.reads] == [
        ("zoë", 2**62 + 1),
        ("b", -1),
    ]
    assert [read.request["ms_since_impression"] for read in world.features.reads] == [0.1, None]
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    length = int(answer.headers[LENGTH])
    score, margin, verdict = msgspec.json.decode(answer.body[:length])["outputs"]
    assert "data" in margin
    assert score["parameters"] == {"binary_data_size": 16}
    assert "data" not in score
    alone = asyncio.run(world.score({"model": SERVICE, "entities": {"ip": "b", "device_id": "e"}})).decision()
    assert np.frombuffer(answer.body[length : length + 16], "<f8")[1] == alone.score
    assert answer.body[length + 16 :].endswith(words(alone.verdict))
    assert len(answer.body) == length + 16 + verdict["parameters"]["binary_data_size"]


def test_all_outputs_are_bytes_when_the_request_says_so(shared_world: World) -> None:
    answer = infer(shared_world, request(parameters={"binary_data_output": True}))
    json = msgspec.json.decode(answer.body[: int(answer.headers[LENGTH])])
    assert all("data" not in output for output in json["outputs"])
    mixed = request(
        parameters={"binary_data_output": True},
        outputs=[{"name": "score", "parameters": {"binary_data": False}}],
    )
    assert outputs(infer(shared_world, mixed)).keys() == {"score"}


def test_a_key_that_is_a_number_is_a_tensor_of_numbers(published: Path) -> None:
    world = build_world(published)
    world.features.plan_now = plan(join_keys=(JoinKey("ip", "STRING"), JoinKey("device_id", "INT32")))
    asyncio.run(world.service.load(CHAMPION))
    columns = {"ip": ("BYTES", [1], words("a")), "device_id": ("INT32", [1], struct.pack("<i", -7))}
    assert infer(world, *binary_body(columns)).status == 200
    assert world.features.reads[0].entities == {"ip": "a", "device_id": -7}


REFUSED: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "not valid JSON"),
    "nothing": (b"", "not valid JSON"),
    "no inputs": ({}, "inputs: Object missing required field"),
    "a huge shape": ({"inputs": [tensor("ip", ["a"], shape=[2**60])]}, "shape[0]: Expected `int` <= 1000"),
    "a shape beyond all": (b'{"inputs":[{"name":"ip","datatype":"BYTES","shape":[1e300],"data":["a"]}]}', "shape[0]"),
    "too many rows": ({"inputs": [tensor("ip", ["a"] * 1001)]}, "Expected `int` <= 1000"),
    "no rows": ({"inputs": [tensor("ip", [], shape=[0])]}, "Expected `int` >= 1"),
    "a negative shape": ({"inputs": [tensor("ip", [], shape=[-1])]}, "Expected `int` >= 1"),
    "two columns": ({"inputs": [tensor("ip", ["a", "b"], shape=[1, 2])]}, "must be [1] or [1, 1]"),
    "three dimensions": ({"inputs": [tensor("ip", ["a"], shape=[1, 1, 1])]}, "length <= 2"),
    "fewer values": ({"inputs": [tensor("ip", ["a"], shape=[2])]}, "1 values for the shape [2]"),
    "uneven columns": ({"inputs": [tensor("ip", ["a"]), tensor("device_id", ["a", "b"])]}, "same number of rows"),
    "another type": ({"inputs": [tensor("ip", [7], "INT64")]}, "'ip' has the datatype BYTES"),
    "a wrong value": (
        {"inputs": [tensor("ip", ["a", 7]), tensor("device_id", ["d", "d"])]},
        "entities.ip: Expected `str`, got `int` (row 1)",
    ),
    "a list too deep": (
        {"inputs": [tensor("ip", [[["a"]]]), tensor("device_id", ["d"])]},
        "entities.ip: Expected `str`, got `array` (row 0)",
    ),
    "an unknown input": ({"inputs": [tensor("os", ["a"])]}, "'os' is unknown"),
    "an input twice": ({"inputs": [tensor("ip", ["a"]), tensor("ip", ["a"])]}, "'ip' is given twice"),
    "a key left out": ({"inputs": [tensor("ip", ["a"])]}, "missing: give entities.device_id"),
    "no data": ({"inputs": [{"name": "ip", "datatype": "BYTES", "shape": [1]}]}, "either data or binary_data_size"),
    "an unknown output": (request(outputs=[{"name": "label"}]), "no output 'label'"),
    "a classification": (request(outputs=[{"name": "score", "parameters": {"classification": 2}}]), "classification"),
    "shared memory": (
        {
            "inputs": [
                {"name": "ip", "datatype": "BYTES", "shape": [1], "parameters": {"shared_memory_region": "r"}},
            ]
        },
        "no shared memory",
    ),
    "an unknown depth": (request(parameters={"explain": "deep"}), "Invalid enum value"),
    "bytes that are not there": (
        {"inputs": [{"name": "ip", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 2**60}}]},
        "0 bytes follow the JSON",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused_with_the_reason(shared_world: World, case: str) -> None:
    body, told = REFUSED[case]
    reads = len(shared_world.features.reads)
    answer = infer(shared_world, body)
    assert answer.status == 400
    assert told in error(answer)
    assert len(shared_world.features.reads) == reads, "nothing is decided"


BINARY_REFUSED = {
    "cut short": (words("abc")[:-1], 1, "end before 1 elements"),
    "too many": (words("a", "b"), 1, "5 bytes are left"),
    "too few": (words("a"), 2, "end before 2 elements"),
    "a length beyond the end": (struct.pack("<I", 2**32 - 1) + b"a", 1, "end before"),
    "no text": (struct.pack("<I", 1) + b"\xff", 1, "not UTF-8"),
    "half a prefix": (b"\x01\x00", 1, "end before"),
}


@pytest.mark.parametrize("case", BINARY_REFUSED)
def test_bytes_that_are_no_tensor_are_refused(shared_world: World, case: str) -> None:
    data, rows, told = BINARY_REFUSED[case]
    body, headers = binary_body({"ip": ("BYTES", [rows], data)})
    answer = infer(shared_world, body, headers)
    assert answer.status == 400
    assert told in error(answer)


@pytest.mark.parametrize("length", ["-1", "x", "", "99999999999999999999", "2", "٣", "1e2"])
def test_a_length_of_the_json_that_cannot_be_is_refused(shared_world: World, length: str) -> None:
    body, _ = binary_body({"ip": ("BYTES", [1], words("a"))})
    headers = {LENGTH: length.encode().decode("latin-1")}
    assert infer(shared_world, body, headers).status == 400


def test_numbers_of_another_size_than_announced_are_refused(shared_world: World) -> None:
    body, headers = binary_body({"attempts": ("INT64", [2], b"\x00" * 15)})
    assert "15 bytes, but 2 × INT64 are 16" in error(infer(shared_world, body, headers))


def test_errors_of_the_edge_have_the_protocols_form(shared_world: World) -> None:
    compressed = infer(shared_world, request(), {"content-encoding": "gzip"})
    assert (compressed.status, "uncompressed" in error(compressed)) == (415, True)
    assert error(asyncio.run(shared_world.call("GET", f"{MODEL}/infer")))
    too_large = infer(shared_world, b" " * (1 << 20) + b"{}")
    assert (too_large.status, "1048576 bytes" in error(too_large)) == (413, True)
    assert error(get(shared_world, "/v2/repository/index"))


def test_real_answers_fit_the_document(shared_world: World) -> None:
    document = msgspec.json.decode(msgspec.json.encode(openapi_document()))
    served = [("/v2", "/v2"), (MODEL, "/v2/models/{model}"), (f"{MODEL}/ready", "/v2/models/{model}/ready")]
    answers = [(get(shared_world, path), document["paths"][shape]["get"]) for path, shape in served]
    described = document["paths"]["/v2/models/{model}/infer"]["post"]
    answers += [(infer(shared_world, request(parameters={"explain": "full"})), described)]
    answers += [(infer(shared_world, {}), described)]
    for answer, operation in answers:
        content = operation["responses"][str(answer.status)]["content"]["application/json"]
        Draft202012Validator({**content["schema"], "components": document["components"]}).validate(answer.json())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
datatypes = st.sampled_from(["BYTES", "INT64", "FP64", "BOOL", "INT32", "FP32", "UINT8", "odd"])
names = st.sampled_from(["ip", "device_id", "attempts", "ms_since_impression", "country", "other"])
tensors = st.fixed_dictionaries(
    {
        "name": names,
        "shape": st.lists(st.integers(-1, 3) | st.just(2**60), max_size=3) | anything,
        "datatype": datatypes,
    },
    optional={
        "data": st.lists(anything, max_size=3) | anything,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 40) | anything}),
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3)},
    optional={
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["score", "reason_codes", "x"])}), max_size=2
        ),
        "parameters": st.fixed_dictionaries({}, optional={"explain": anything, "binary_data_output": anything}),
        "id": anything,
    },
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=requests | anything, tail=st.binary(max_size=60), cut=st.integers(-3, 3) | st.none())
def test_garbage_is_refused_and_breaks_nothing(shared_world: World, asked: Any, tail: bytes, cut: int | None) -> None:
    json = msgspec.json.encode(asked)
    headers = {} if cut is None else {LENGTH: str(len(json) + cut)}
    answer = infer(shared_world, json + tail, headers)
    assert answer.status in (200, 400)
    if answer.status == 400:
        assert error(answer)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=40), datatype=datatypes, name=names, rows=st.integers(1, 5))
def test_garbage_behind_the_json_is_refused_and_breaks_nothing(
    shared_world: World, data: bytes, datatype: str, name: str, rows: int
) -> None:
    columns = {"ip": ("BYTES", [rows], words(*["a"] * rows)), "device_id": ("BYTES", [rows], words(*["a"] * rows))}
    body, headers = binary_body(columns | {name: (datatype, [rows], data)})
    assert infer(shared_world, body, headers).status in (200, 400)
