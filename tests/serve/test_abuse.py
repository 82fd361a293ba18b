"""A thousand requests that are wrong, clients that are slow, more than can be answered: the server goes on, and says why."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.grpc

from octc.store.runs import Run
from tests.serve.process import Serving, serving
from tests.tiny_artifacts import copied, resign

INFER = "/v2/models/onnx-int8/infer"
PIXELS = 64 * 64


def good(**changes: Any) -> dict[str, Any]:
    """A request for inference in JSON; changes of its input."""
    one = {"name": "image", "shape": [1, 1, 64, 64], "datatype": "UINT8", "data": [7] * PIXELS, **changes}
    return {"inputs": [{key: value for key, value in one.items() if value is not None}]}


WRONG: dict[str, Any] = {
    "no JSON": b"{",
    "no object": [],
    "no inputs": {},
    "empty inputs": {"inputs": []},
    "two inputs": {"inputs": [good()["inputs"][0]] * 2},
    "input name": good(name="x"),
    "dtype": good(datatype="FP32"),
    "dtype of no kind": good(datatype="PICTURE"),
    "shape too small": good(shape=[1, 1, 32, 32]),
    "shape of three": good(shape=[1, 64, 64]),
    "no images": good(shape=[0, 1, 64, 64], data=[]),
    "negative shape": good(shape=[-1, 1, 64, 64]),
    "huge shape": good(shape=[2**62, 1, 64, 64]),
    "text shape": good(shape=["1", 1, 64, 64]),
    "data too short": good(data=[7] * (PIXELS - 1)),
    "data too long": good(data=[7] * (PIXELS + 1)),
    "pixel 256": good(data=[256] * PIXELS),
    "pixel -1": good(data=[-1] * PIXELS),
    "pixel 0.5": good(data=[0.5] * PIXELS),
    "pixel true": good(data=[True] * PIXELS),
    "pixel text": good(data=["7"] * PIXELS),
    "ragged": good(data=[[[[7] * 64] * 64], []]),
    "data null": {"inputs": [{**good()["inputs"][0], "data": None}]},
    "no data": good(data=None),
    "unknown field": {**good(), "more": 1},
    "unknown output": {**good(), "outputs": [{"name": "x"}]},
    "twice an output": {**good(), "outputs": [{"name": "logits"}] * 2},
    "sequence": {**good(), "parameters": {"sequence_id": 1}},
    "shared memory": good(parameters={"shared_memory_region": "x"}),
    "classification": {**good(), "outputs": [{"name": "logits", "parameters": {"classification": 2}}]},
    "binary size without bytes": good(data=None, parameters={"binary_data_size": PIXELS}),
    "timeout text": {**good(), "parameters": {"timeout": "1"}},
    "id too long": {**good(), "id": "x" * 129},
    "id not text": {**good(), "id": 7},
    "deep": b'{"inputs":' + b"[" * 100_000,
    "not UTF-8": b"\xff" * 100,
    "NaN": b'{"inputs":[{"name":"image","shape":[1,1,64,64],"datatype":"UINT8","data":[NaN]}]}',
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_has_an_error_object(name: str, server: Serving) -> None:
    body = WRONG[name] if isinstance(WRONG[name], bytes) else json.dumps(WRONG[name]).encode()
    with server.client() as client:
        found = client.post(INFER, content=body)
        assert found.status_code == (413 if name == "huge shape" else 400), found.text
        assert set(found.json()) == {"error", "code", "help"}
        assert found.json()["error"]
        assert client.post(INFER, json=good()).status_code == 200


@pytest.mark.parametrize("length", ["-1", "x", "99999999999999", "1e3", "100000", "", "٣"])
def test_wrong_lengths_of_the_json(length: str, server: Serving) -> None:
    with server.client() as client:
        found = client.post(INFER, json=good(), headers={"Inference-Header-Content-Length": length.encode()})
        assert found.status_code == 400


def test_a_thousand_malformed_requests_leave_it_serving(server: Serving) -> None:
    draw = random.Random(0)
    head = json.dumps(good(data=None, parameters={"binary_data_size": PIXELS})).encode()
    whole = head + bytes(PIXELS)
    kinds = [json.dumps(value).encode() for value in WRONG.values() if not isinstance(value, bytes)]

    def body() -> tuple[bytes, dict[str, str]]:
        data = bytearray(draw.choice((whole, draw.choice(kinds), json.dumps(good()).encode())))
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        cut = bytes(data[: draw.randrange(len(data) + 1)])
        return cut, {"Inference-Header-Content-Length": str(draw.choice((len(head), 0, len(cut), draw.randrange(10_000))))}

    seen: dict[int, int] = {}
    with server.client() as client:
        for number in range(800):
            data, headers = body()
            path = draw.choice((INFER, INFER, "/v1/predict", "/v1/map", "/v2/repository/index"))
            found = client.post(path, content=data, headers=headers if number % 2 else {})
            seen[found.status_code] = seen.get(found.status_code, 0) + 1
    for _ in range(200):  # bytes that are no HTTP, or end early
        with socket.create_connection(("127.0.0.1", int(server.place.rpartition(":")[2])), 10) as line:
            line.sendall(
                draw.randbytes(draw.randint(1, 400))
                if draw.random() < 0.5
                else b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Le"
            )
    assert set(seen) <= {200, 400, 413, 404}, seen
    assert seen[400] > 200
    assert server.process.poll() is None
    with server.client() as client:
        assert client.post(INFER, json=good()).status_code == 200
    assert not server.events("internal error")


def test_huge_bodies_are_refused_before_they_are_read(server: Serving) -> None:
    with server.client() as client:
        assert client.post(INFER, content=b"[" + b"1," * (4 << 20)).status_code == 413
    line = socket.create_connection(("127.0.0.1", int(server.place.rpartition(":")[2])), 10)
    line.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n".encode())
    assert b"413" in line.recv(100)
    line.close()


@pytest.fixture(scope="module")
def small(warm: tuple[str, ...], run: Run):  # type: ignore[no-untyped-def]
    """A server with little room and little patience."""
    with serving(warm, run.artifacts / "onnx-int8", "--timeout", "2", "--requests", "8", "--queue", "8") as found:
        yield found


def test_slow_clients_are_cut_and_others_are_answered(small: Serving) -> None:
    port = int(small.place.rpartition(":")[2])
    slow = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(40)]
    for number, line in enumerate(slow):
        line.sendall(b"POST /v2/models/onnx-int8/infer HTTP/1.1\r\n" if number % 2 else b"G")  # headers that never end
    body = socket.create_connection(("127.0.0.1", port), 30)
    body.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nabc".encode())
    with small.client() as client:
        assert client.post(INFER, json=good()).status_code == 200
    assert select.select(slow, [], [], 0)[0] == []  # none of them was cut meanwhile
    assert b"408" in body.recv(200)
    for line in slow:
        line.settimeout(20)
        assert line.recv(10) == b""  # closed by the server
        line.close()
    body.close()


def test_more_than_it_can_answer_is_refused_politely(small: Serving, pictures: list[Path]) -> None:
    data = [("file", (f"{number}.png", path.read_bytes())) for number, path in enumerate(pictures[:30])]

    def one(number: int) -> httpx2.Response:
        with small.client() as client:
            return (
                client.post("/v1/predict", files=data)
                if number % 2
                else client.post(INFER, json=good(shape=[4, 1, 64, 64], data=[1] * 4 * PIXELS))
            )

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(one, range(128)))
    seen = {
        status: sum(answer.status_code == status for answer in found) for status in {answer.status_code for answer in found}
    }
    assert set(seen) <= {200, 429, 504}, seen
    assert seen[200] > 0
    assert seen[429] > 0
    for answer in found:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["code"] == "OCT-E908"
    with small.client() as client:
        assert client.get("/v2/health/live").status_code == 200
        assert client.post(INFER, json=good()).status_code == 200
        text = client.get("/metrics").text
        (version,) = client.get("/v2/models/onnx-int8").json()["versions"]
    assert 'octc_requests_total{protocol="http",route="/v2/models/{name}/infer",status="200"}' in text
    assert f'octc_batch_images_bucket{{le="8.0",model="onnx-int8",version="{version}"}}' in text


def test_two_versions_of_one_name_are_counted_apart(warm: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    """A manifest with another date is another version of the same network."""
    for name in ("a", "b"):
        shutil.copytree(run.artifacts / "onnx-int8", tmp_path / name)
    manifest = tmp_path / "b" / "artifact.json"
    manifest.write_text(manifest.read_text().replace("{", '{"note": "again",', 1))
    with serving(warm, tmp_path / "a", tmp_path / "b") as found, found.client() as client:
        versions = [hashlib.sha256((tmp_path / name / "artifact.json").read_bytes()).hexdigest()[:12] for name in "ab"]
        for version, count in zip(versions, (1, 3), strict=True):
            for _ in range(count):
                assert client.post(f"/v2/models/onnx-int8/versions/{version}/infer", json=good()).status_code == 200
        lines = client.get("/metrics").text.splitlines()
    for version, count in zip(versions, (1, 3), strict=True):
        assert f'octc_images_total{{model="onnx-int8",version="{version}"}} {count}.0' in lines
        assert f'octc_batch_images_count{{model="onnx-int8",version="{version}"}} {count}.0' in lines
        assert sum(line.get("version") == version for line in found.events("request")) == count


@pytest.mark.parametrize("path", [INFER, "/v1/predict", "/v1/map", "/v2/repository/index"])
@pytest.mark.parametrize("coding", ["gzip", "br", "identity, deflate", "GZIP"])
def test_a_compressed_body_is_told_to_come_as_it_is(path: str, coding: str, server: Serving) -> None:
    with server.client() as client:
        found = client.post(path, content=gzip.compress(json.dumps(good()).encode()), headers={"Content-Encoding": coding})
        assert (found.status_code, found.json()["code"], found.headers["accept-encoding"]) == (415, "OCT-E913", "identity")
        assert "without Content-Encoding" in found.json()["help"]
        assert client.post(INFER, json=good(), headers={"Content-Encoding": "Identity"}).status_code == 200


def test_grpc_says_what_is_wrong(small: Serving) -> None:
    client = tritonclient.grpc.InferenceServerClient(small.grpc)
    one = tritonclient.grpc.InferInput("image", [9, 1, 64, 64], "UINT8")
    one.set_data_from_numpy(np.zeros((9, 1, 64, 64), np.uint8))
    for model, more, status in (
        ("onnx-int8", {}, "INVALID_ARGUMENT"), ("other", {}, "NOT_FOUND"), ("onnx-int8", {"model_version": "1"}, "NOT_FOUND"),
        ("onnx-int8", {"sequence_id": 5}, "INVALID_ARGUMENT"),
    ):  # fmt: skip
        with pytest.raises(tritonclient.grpc.InferenceServerException) as caught:
            client.infer(model, [one], **more)
        assert caught.value.status() == f"StatusCode.{status}"
    with pytest.raises(tritonclient.grpc.InferenceServerException) as caught:
        client.get_model_config("onnx-int8")
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    client.close()


def test_a_reload_drops_no_request_and_a_bad_one_changes_nothing(warm: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    place = copied(run, "onnx-int8", tmp_path)
    token = "a-token-of-this-test-0123456789"
    with serving(warm, place, env={"OCTC_SERVE_TOKEN": token}, token=token) as found, found.client() as client:
        before = client.get("/v2/models/onnx-int8").json()["versions"]
        stop, statuses = threading.Event(), list[int]()

        def ask() -> None:
            with found.client() as own:
                while not stop.is_set():
                    statuses.append(own.post(INFER, json=good()).status_code)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        resign(place, lambda value: value["details"].update(note="another"))
        answer = client.post("/v1/reload")
        assert answer.status_code == 200
        after = client.get("/v2/models/onnx-int8").json()["versions"]
        assert after != before
        (place / "model.onnx").write_bytes(b"altered")
        refused = client.post("/v1/reload")
        assert (refused.status_code, refused.json()["code"]) == (422, "OCT-E501")
        found.process.send_signal(signal.SIGHUP)
        while len(found.events("reload refused")) < 2:
            time.sleep(0.05)
        assert client.get("/v2/models/onnx-int8").json()["versions"] == after
        stop.set()
        for thread in asking:
            thread.join()
        assert set(statuses) == {200}
        assert len(statuses) > 10


def test_a_signal_while_artifacts_are_read_is_heeded_afterwards(warm: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    """Whoever changes an artifact during a reload and says so is served the change."""
    place = copied(run, "onnx-int8", tmp_path)
    with serving(warm, place) as found, found.client() as client:
        for note in ("first", "second"):
            resign(place, lambda value, note=note: value["details"].update(note=note))  # type: ignore[misc]
            found.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        version = hashlib.sha256((place / "artifact.json").read_bytes()).hexdigest()[:12]
        for _ in range(600):
            if client.get("/v2/models/onnx-int8").json()["versions"] == [version]:
                break
            time.sleep(0.05)
        assert client.get("/v2/models/onnx-int8").json()["versions"] == [version]


def test_tls(warm: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    words = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    alt = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    subprocess.run([*words.split(), *alt], cwd=tmp_path, check=True, capture_output=True)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with serving(warm, run.artifacts / "onnx-int8", "--tls-cert", cert, "--tls-key", key) as found:
        assert found.http.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        assert httpx2.get(f"{found.http}/v2", verify=context, trust_env=False).status_code == 200
        client = tritonclient.grpc.InferenceServerClient(found.grpc, ssl=True, root_certificates=str(cert))
        assert client.is_server_live()
        client.close()


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: Serving, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("st")
    words = ["run", f"{server.http}/openapi.json", "-n", "20", "--seed", "1", "--phases", "coverage,fuzzing", "--mode", "all"]
    done = subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert not server.events("internal error")


def exchanged(server: Serving, sent: bytes, *, ends: bool = False) -> bytes:
    """What comes back for these bytes until the server closes the connection; ends: the client says that it sends no more."""
    with socket.create_connection(("127.0.0.1", int(server.place.rpartition(":")[2])), 10) as line:
        line.sendall(sent)
        if ends:
            line.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: line.recv(1 << 16), b""))


@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_sends_no_more_still_gets_its_answers(requests: int, server: Serving) -> None:
    body = json.dumps(good()).encode()
    request = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    assert exchanged(server, request * requests, ends=True).count(b"HTTP/1.1 200") == requests
    assert exchanged(server, request[:-1], ends=True) == b""  # half a request has no answer, and nobody waits for it


@pytest.mark.parametrize("length", ["9" * 15, "9" * 16, "9" * 19])
def test_a_length_of_any_number_of_digits_is_refused_before_the_body(length: str, server: Serving) -> None:
    request = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()
    assert exchanged(server, request).startswith(b"HTTP/1.1 413")
