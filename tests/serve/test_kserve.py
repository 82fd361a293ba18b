"""KServe v2 with the client that others use: tritonclient, over HTTP and gRPC, JSON and binary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
import tritonclient.http

from octc.core.files import sha256_file
from octc.imaging.decode import read_image
from octc.runtimes.model import load
from octc.runtimes.predict import classify
from octc.store.runs import Run
from tests.serve.process import Serving

MODELS = ("onnx-int8", "openvino-int8")
WAYS = ("http-json", "http-binary", "grpc-raw", "grpc-typed")


class Client:
    """One of the two clients, and how tensors go."""

    def __init__(self, way: str, server: Serving) -> None:
        self.library: ModuleType = tritonclient.http if way.startswith("http") else tritonclient.grpc
        self.http, self.binary, self.typed = way.startswith("http"), way == "http-binary", way == "grpc-typed"
        place = server.place if self.http else server.grpc
        self.client: Any = self.library.InferenceServerClient(place)

    def infer(self, model: str, images: npt.NDArray[np.uint8], outputs: tuple[str, ...] = (), **more: Any) -> Any:
        one = self.library.InferInput("image", list(images.shape), "UINT8")
        if self.http:
            one.set_data_from_numpy(images, binary_data=self.binary)
            wanted = [self.library.InferRequestedOutput(name, binary_data=self.binary) for name in outputs]
        else:
            one.set_data_from_numpy(images)
            wanted = [self.library.InferRequestedOutput(name) for name in outputs]
        if self.typed:
            one._input.contents.uint_contents.extend(images.ravel().tolist())
            one._raw_content = None
        return self.client.infer(model, [one], outputs=wanted or None, **more)


@pytest.fixture(params=WAYS)
def client(request: pytest.FixtureRequest, server: Serving) -> Iterator[Client]:
    found = Client(request.param, server)
    yield found
    found.client.close()


def as_dict(found: Any) -> Any:
    """gRPC's messages as HTTP's documents."""
    from google.protobuf.json_format import MessageToDict

    return found if isinstance(found, (dict, list)) else MessageToDict(found, preserving_proto_field_name=True)


def test_health_and_descriptions(client: Client, run: Run) -> None:
    ask = client.client
    assert ask.is_server_live()
    assert ask.is_server_ready()
    assert as_dict(ask.get_server_metadata())["name"] == "octc"
    for name in MODELS:
        version = sha256_file(run.artifacts / name / "artifact.json")[:12]
        assert ask.is_model_ready(name)
        assert ask.is_model_ready(name, version)
        found = as_dict(ask.get_model_metadata(name))
        assert (found["name"], found["versions"]) == (name, [version])
        assert [(one["name"], one["datatype"]) for one in found["inputs"]] == [("image", "UINT8")]
        assert [int(side) for side in found["inputs"][0]["shape"]] == [-1, 1, 64, 64]
        assert [(one["name"], one["datatype"]) for one in found["outputs"]] == [("logits", "FP32"), ("probabilities", "FP64")]
    listed = as_dict(ask.get_model_repository_index())
    assert [one["name"] for one in (listed if isinstance(listed, list) else listed["models"])] == list(MODELS)


def reference(folder: Path, paths: list[Path]) -> tuple[Any, npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Prepared images, and what `octc predict` computes of them: logits [N, K] of its engine and its probabilities."""
    seen: list[npt.NDArray[np.float32]] = []
    with load(folder) as model:

        def engine(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            seen.append(model._runtime(batch))
            return seen[-1]

        records = list(classify(engine, model.artifact, paths))
        images = np.concatenate([model.preprocess.prepare(read_image(path).image) for path in paths])
    scores = np.array([record.probabilities for record in records])
    return images, np.concatenate(seen), scores


@pytest.mark.parametrize("model", MODELS)
def test_logits_and_probabilities_are_those_of_octc_predict(model: str, client: Client, run: Run, pictures: list[Path]) -> None:
    images, logits, scores = reference(run.artifacts / model, pictures[:13])
    for part in (slice(0, 1), slice(1, 6), slice(0, 13)):
        found = client.infer(model, images[part], ("logits", "probabilities"), request_id="a-7")
        np.testing.assert_array_equal(found.as_numpy("logits"), logits[part])
        np.testing.assert_array_equal(found.as_numpy("probabilities"), scores[part])
        assert found.as_numpy("logits").dtype == np.float32
        answer = as_dict(found.get_response())
        assert (answer["id"], answer["model_name"]) == ("a-7", model)


def test_real_images(client: Client, run: Run, ucsd: Path) -> None:
    paths = sorted(ucsd.rglob("*.jp*g"))[:100]
    assert len(paths) == 100
    images, logits, scores = reference(run.artifacts / "onnx-int8", paths)
    for start in range(0, 100, 25):
        found = client.infer("onnx-int8", images[start : start + 25])
        np.testing.assert_array_equal(found.as_numpy("logits"), logits[start : start + 25])
        np.testing.assert_array_equal(found.as_numpy("probabilities"), scores[start : start + 25])
