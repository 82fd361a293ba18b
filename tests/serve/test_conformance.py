"""KServe's protocol row by row: each row of the table in docs/serving.md is a function here, and the other way round."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2

from tests.serve.process import Serving

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
MODEL = "/v2/models/onnx-int8"
SIDE = 64
IMAGES: npt.NDArray[np.uint8] = np.random.default_rng(7).integers(0, 256, (3, 1, SIDE, SIDE), np.uint8)
Check = Callable[[httpx2.Client, Any], None]
CHECKS: dict[str, Check] = {}


def row(name: str) -> Callable[[Check], Check]:
    def keep(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return keep


@pytest.fixture(scope="module")
def grpc(server: Serving):  # type: ignore[no-untyped-def]
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    yield client
    client.close()


def test_the_page_and_these_functions_have_the_same_rows() -> None:
    assert re.findall(r"^\| ([HG]\d+) \|", PAGE.read_text(), re.M) == sorted(CHECKS, key=lambda name: (name[0] != "H", name))


def one(images: npt.NDArray[np.uint8] = IMAGES, **changes: Any) -> dict[str, Any]:
    return {"name": "image", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist(), **changes}


def infer(client: httpx2.Client, path: str = f"{MODEL}/infer", **changes: Any) -> dict[str, Any]:
    found = client.post(path, json={"inputs": [one()], **changes})
    assert found.status_code == 200, found.text
    value: dict[str, Any] = found.json()
    return value


def refused(found: httpx2.Response, status: int) -> None:
    assert found.status_code == status, found.text
    assert found.headers["content-type"] == "application/json"
    assert found.json()["error"]


def numbers(output: dict[str, Any]) -> npt.NDArray[np.float64]:
    return np.array(output["data"], np.float64).reshape(output["shape"])


@row("H01")
def live_and_ready(client: httpx2.Client, _: Any) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


@row("H02")
def model_ready(client: httpx2.Client, _: Any) -> None:
    (version,) = client.get(MODEL).json()["versions"]
    for path in (f"{MODEL}/ready", f"{MODEL}/versions/{version}/ready"):
        assert client.get(path).json() == {"name": "onnx-int8", "ready": True}


@row("H03")
def server_metadata(client: httpx2.Client, _: Any) -> None:
    found = client.get("/v2").json()
    assert set(found) == {"name", "version", "extensions"}
    assert found["extensions"] == ["binary_tensor_data", "model_repository"]


@row("H04")
def model_metadata(client: httpx2.Client, _: Any) -> None:
    found = client.get(MODEL).json()
    assert set(found) == {"name", "versions", "platform", "inputs", "outputs"}
    assert found["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 1, SIDE, SIDE]}]
    assert client.get(f"{MODEL}/versions/{found['versions'][0]}").json() == found


@row("H05")
def data_flat_and_nested(client: httpx2.Client, _: Any) -> None:
    assert infer(client) == infer(client, inputs=[one(data=IMAGES.tolist())])


@row("H06")
def the_answer(client: httpx2.Client, _: Any) -> None:
    found, metadata = infer(client), client.get(MODEL).json()
    assert set(found) == {"model_name", "model_version", "outputs"}
    assert (found["model_name"], [found["model_version"]]) == (metadata["name"], metadata["versions"])
    assert [each["name"] for each in found["outputs"]] == [each["name"] for each in metadata["outputs"]]
    for each in found["outputs"]:
        assert set(each) == {"name", "shape", "datatype", "data"}
        assert numbers(each).shape == (3, 4)


@row("H07")
def the_id(client: httpx2.Client, _: Any) -> None:
    assert infer(client, id="a-7")["id"] == "a-7"
    assert "id" not in infer(client)


@row("H08")
def requested_outputs(client: httpx2.Client, _: Any) -> None:
    names = ["probabilities", "logits"]
    assert [each["name"] for each in infer(client, outputs=[{"name": name} for name in names])["outputs"]] == names
    assert [each["name"] for each in infer(client, outputs=[{"name": "logits"}])["outputs"]] == ["logits"]


@row("H09")
def a_version(client: httpx2.Client, _: Any) -> None:
    (version,) = client.get(MODEL).json()["versions"]
    assert infer(client, f"{MODEL}/versions/{version}/infer") == infer(client)


@row("H10")
def what_is_not_there(client: httpx2.Client, _: Any) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready", f"{MODEL}/versions/1", f"{MODEL}/versions/1/ready"):
        refused(client.get(path), 404)
    refused(client.post("/v2/models/other/infer", json={"inputs": [one()]}), 404)
    refused(client.get("/v2/nothing"), 404)
    refused(client.get(f"{MODEL}/infer"), 405)


@row("H11")
def what_does_not_fit(client: httpx2.Client, _: Any) -> None:
    for wrong in (
        one(name="x"),
        one(datatype="FP32"),
        one(shape=[1, 1, SIDE, SIDE]),
        one(shape=[3, SIDE, SIDE]),
        one(data=[1]),
    ):
        refused(client.post(f"{MODEL}/infer", json={"inputs": [wrong]}), 400)
    refused(client.post(f"{MODEL}/infer", content=b"{"), 400)


@row("H12")
def binary_input(client: httpx2.Client, _: Any) -> None:
    tensor = {**one(), "parameters": {"binary_data_size": IMAGES.nbytes}}
    del tensor["data"]
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert client.post(f"{MODEL}/infer", content=head + IMAGES.tobytes(), headers=headers).json() == infer(client)


@row("H13")
def binary_outputs(client: httpx2.Client, _: Any) -> None:
    plain = infer(client)["outputs"]
    wanted: tuple[dict[str, Any], ...] = (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "probabilities"}]},
    )
    for more in wanted:
        found = client.post(f"{MODEL}/infer", json={"inputs": [one()], **more})
        length = int(found.headers["inference-header-content-length"])
        rest = found.content[length:]
        for each, same in zip(json.loads(found.content[:length])["outputs"], plain, strict=True):
            if (size := each.get("parameters", {}).get("binary_data_size")) is None:
                assert each == same
                continue
            kind = {"FP32": "<f4", "FP64": "<f8"}[each["datatype"]]
            np.testing.assert_array_equal(np.frombuffer(rest[:size], kind).reshape(each["shape"]), numbers(same))
            rest = rest[size:]
        assert rest == b""


@row("H14")
def repository_index(client: httpx2.Client, _: Any) -> None:
    listed = client.post("/v2/repository/index").json()
    assert listed == client.post("/v2/repository/index", json={"ready": True}).json()
    assert [(each["name"], each["state"]) for each in listed] == [("onnx-int8", "READY"), ("openvino-int8", "READY")]


@row("H15")
def load_and_unload(client: httpx2.Client, _: Any) -> None:
    for word in ("load", "unload"):
        refused(client.post(f"/v2/repository/models/onnx-int8/{word}"), 400)


@row("H16")
def other_extensions(client: httpx2.Client, _: Any) -> None:
    for path in (f"{MODEL}/config", f"{MODEL}/stats", "/v2/models/stats", "/v2/systemsharedmemory/status", "/v2/trace/setting"):
        refused(client.get(path), 404)


@row("H17")
def parameters(client: httpx2.Client, _: Any) -> None:
    for more in (
        {"parameters": {"sequence_id": 7}}, {"parameters": {"priority": 1}},
        {"inputs": [one(parameters={"shared_memory_region": "x"})]},
        {"outputs": [{"name": "logits", "parameters": {"classification": 2}}]},
    ):  # fmt: skip
        refused(client.post(f"{MODEL}/infer", json={"inputs": [one()], **more}), 400)


@row("H18")
def a_timeout(client: httpx2.Client, _: Any) -> None:
    assert infer(client, parameters={"timeout": 50_000_000})
    refused(client.post(f"{MODEL}/infer", json={"inputs": [one()], "parameters": {"timeout": -1}}), 400)


@row("H19")
def too_much(client: httpx2.Client, _: Any) -> None:
    refused(client.post(f"{MODEL}/infer", json={"inputs": [one(shape=[65, 1, SIDE, SIDE])]}), 413)


@row("H20")
def compressed(client: httpx2.Client, _: Any) -> None:
    refused(client.post(f"{MODEL}/infer", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), 415)


def asked(images: npt.NDArray[np.uint8] = IMAGES, *, raw: bool = True, **changes: Any) -> Any:
    """A request of gRPC."""
    request = service_pb2.ModelInferRequest(**{"model_name": "onnx-int8", **changes})
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    if raw:
        request.raw_input_contents.append(images.tobytes())
    else:
        tensor.contents.uint_contents.extend(images.ravel().tolist())
    return request


def raised(call: Callable[[], Any], status: str) -> None:
    import grpc

    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code().name == status  # type: ignore[attr-defined]
    assert caught.value.details()  # type: ignore[attr-defined]


@row("G01")
def rpc_live_and_ready(_: httpx2.Client, grpc: Any) -> None:
    assert grpc.is_server_live()
    assert grpc.is_server_ready()
    assert grpc.is_model_ready("onnx-int8")


@row("G02")
def rpc_metadata(client: httpx2.Client, grpc: Any) -> None:
    assert grpc.get_server_metadata(as_json=True) == client.get("/v2").json()
    found = grpc.get_model_metadata("onnx-int8")
    metadata = client.get(MODEL).json()
    assert (found.name, list(found.versions), found.platform) == (metadata["name"], metadata["versions"], metadata["platform"])
    assert [(each.name, each.datatype, list(each.shape)) for each in (*found.inputs, *found.outputs)] == [
        (each["name"], each["datatype"], each["shape"]) for each in (*metadata["inputs"], *metadata["outputs"])
    ]


@row("G03")
def rpc_infer(client: httpx2.Client, grpc: Any) -> None:
    same = [numbers(each) for each in infer(client)["outputs"]]
    for raw in (True, False):
        found = grpc._client_stub.ModelInfer(asked(raw=raw))
        assert [each.name for each in found.outputs] == ["logits", "probabilities"]
        for data, kind, values in zip(found.raw_output_contents, ("<f4", "<f8"), same, strict=True):
            np.testing.assert_array_equal(np.frombuffer(data, kind).reshape(values.shape), values)


@row("G04")
def rpc_id_version_outputs(client: httpx2.Client, grpc: Any) -> None:
    (version,) = client.get(MODEL).json()["versions"]
    request = asked(id="a-7", model_version=version)
    request.outputs.add(name="probabilities")
    found = grpc._client_stub.ModelInfer(request)
    assert (found.id, found.model_name, found.model_version) == ("a-7", "onnx-int8", version)
    assert [each.name for each in found.outputs] == ["probabilities"]


@row("G05")
def rpc_index(client: httpx2.Client, grpc: Any) -> None:
    listed = [(each.name, each.version, each.state) for each in grpc.get_model_repository_index().models]
    assert listed == [(each["name"], each["version"], each["state"]) for each in client.post("/v2/repository/index").json()]


@row("G06")
def rpc_not_there(_: httpx2.Client, grpc: Any) -> None:
    infer_ = grpc._client_stub.ModelInfer
    raised(lambda: infer_(asked(model_name="other")), "NOT_FOUND")
    raised(lambda: infer_(asked(model_version="1")), "NOT_FOUND")


@row("G07")
def rpc_does_not_fit(_: httpx2.Client, grpc: Any) -> None:
    infer_ = grpc._client_stub.ModelInfer
    raised(lambda: infer_(asked(IMAGES[:, :, 1:])), "INVALID_ARGUMENT")
    request = asked()
    request.raw_input_contents[0] = b"x"
    raised(lambda: infer_(request), "INVALID_ARGUMENT")
    request = asked()
    request.parameters["sequence_id"].int64_param = 7
    raised(lambda: infer_(request), "INVALID_ARGUMENT")


@row("G08")
def rpc_not_offered(_: httpx2.Client, grpc: Any) -> None:
    stub = grpc._client_stub
    raised(lambda: stub.ModelConfig(service_pb2.ModelConfigRequest(name="onnx-int8")), "UNIMPLEMENTED")
    raised(lambda: stub.ModelStatistics(service_pb2.ModelStatisticsRequest()), "UNIMPLEMENTED")
    raised(lambda: stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="x")), "UNIMPLEMENTED")
    raised(lambda: stub.SystemSharedMemoryStatus(service_pb2.SystemSharedMemoryStatusRequest()), "UNIMPLEMENTED")
    raised(lambda: list(stub.ModelStreamInfer(iter([asked()]))), "UNIMPLEMENTED")


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_a_row(name: str, server: Serving, grpc: Any) -> None:
    with server.client() as client:
        CHECKS[name](client, grpc)
