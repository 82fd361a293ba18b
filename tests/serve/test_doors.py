"""Who is let in: addresses, tokens, names, other pages; and what is too much."""

from __future__ import annotations

import base64
import socket
from pathlib import Path

import httpx2
import pytest
import tritonclient.grpc
from PIL import Image

from octc.core.errors import OctcError
from octc.core.progress import LogReporter
from octc.schemas.requests import ServeOptions
from octc.serve.doors import open_doors
from octc.store.runs import Run
from tests.conftest import Octc
from tests.octc.pictures import encoded
from tests.serve.process import Serving, serving

TOKEN = "0123456789abcdef0123456789abcdef"
ELSEWHERE = ("0.0.0.0", "::", "192.0.2.1", "clinic.example")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_another_address_needs_a_token(host: str) -> None:
    with pytest.raises(OctcError) as caught:
        open_doors(ServeOptions(host=host), {}, LogReporter())
    assert caught.value.code == "OCT-E910"
    assert open_doors(ServeOptions(host=host), {"OCTC_SERVE_TOKEN": TOKEN}, LogReporter()).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert open_doors(ServeOptions(host=host), {}, LogReporter()).token is None


@pytest.mark.parametrize(
    "token", ["", "short", "a" * 15, "with a space in the middle", "ünicode-token-of-some-length", "a" * 5000]
)
def test_weak_tokens_are_refused(token: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token)
    for options, environ in (
        (ServeOptions(token_file=str(tmp_path / "token")), {}),
        (ServeOptions(), {"OCTC_SERVE_TOKEN": token}),
    ):
        with pytest.raises(OctcError) as caught:
            open_doors(options, environ, LogReporter())
        assert caught.value.code == "OCT-E910"


def test_the_command_refuses_before_it_opens_anything(octc: Octc, run: Run) -> None:
    done = octc("serve", run.artifacts / "onnx-int8", "--host", "0.0.0.0", process=True)
    assert done.returncode == 2
    assert "OCT-E910" in done.stderr
    assert "--token-file" in done.stderr
    assert TOKEN not in octc("serve", "--help").stdout


def test_a_port_that_is_taken(octc: Octc, run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = octc("serve", run.artifacts / "onnx-int8", "--port", port, process=True)
        assert (done.returncode, "OCT-E906" in done.stderr) == (4, True)
        done = octc("serve", run.artifacts / "onnx-int8", "--port", "0", "--grpc-port", port, process=True)
        assert (done.returncode, "OCT-E906" in done.stderr) == (4, True), done.stderr


@pytest.fixture(scope="module")
def locked(warm: tuple[str, ...], run: Run, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A server at every address of this machine, with a token and small limits."""
    place = tmp_path_factory.mktemp("token") / "token"
    place.write_text(TOKEN + "\n")
    words = ("--host", "0.0.0.0", "--token-file", place, "--max-bytes", "1", "--max-frames", "3", "--max-pixels", "0.01")
    with serving(warm, run.artifacts / "onnx-int8", *words, token=TOKEN) as found:
        yield found


ROUTES = ("/", "/page.js", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/onnx-int8", "/metrics", "/openapi.json",
          "/v1/models", "/nothing")  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
def test_nothing_answers_without_the_token(path: str, locked: Serving) -> None:
    address = f"http://127.0.0.1:{locked.http.rpartition(':')[2]}{path}"
    basic = base64.b64encode(f"any:{TOKEN}x".encode()).decode()
    for value in (None, "Bearer", "Bearer " + TOKEN[:-1], "Bearer " + TOKEN + "0", TOKEN, f"Basic {basic}", "Basic !!!"):
        found = httpx2.get(address, headers={} if value is None else {"Authorization": value}, trust_env=False)
        assert found.status_code == 401
        assert found.json()["code"] == "OCT-E910"
        assert TOKEN not in found.text
    basic = base64.b64encode(f"any:{TOKEN}".encode()).decode()
    for value in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        found = httpx2.get(address, headers={"Authorization": value}, trust_env=False)
        assert found.status_code == (404 if path == "/nothing" else 200)


def test_grpc_wants_the_token_too(locked: Serving) -> None:
    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{locked.grpc.rpartition(':')[2]}")
    with pytest.raises(tritonclient.grpc.InferenceServerException) as caught:
        client.is_server_live()
    assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    assert client.is_server_live(headers={"authorization": f"Bearer {TOKEN}"})
    client.close()


def test_uploads_have_limits(locked: Serving, pictures: list[Path]) -> None:
    with locked.client() as client:
        small = [("file", (path.name, path.read_bytes())) for path in pictures[:3]]
        assert client.post("/v1/predict", files=small).status_code == 200
        four = [("file", (path.name, path.read_bytes())) for path in pictures[:4]]
        many = client.post("/v1/predict", files=four)
        assert (many.status_code, many.json()["code"]) == (413, "OCT-E911")
        large = client.post("/v1/predict", content=bytes(2 << 20))
        assert (large.status_code, large.json()["code"]) == (413, "OCT-E911")
        for kind in ("PNG", "WEBP"):
            found = client.post(
                "/v1/predict", files=[*small[:2], ("file", ("wide", encoded(Image.new("L", (400, 100)), kind)))]
            )
            assert (found.status_code, found.json()["code"]) == (413, "OCT-E911")
        wide = client.post("/v1/predict", content=encoded(Image.new("L", (400, 100)), "PNG"))
        assert (wide.status_code, wide.json()["code"]) == (413, "OCT-E911")


def test_other_names_and_other_pages_are_refused_on_loopback(server: Serving) -> None:
    with server.client() as client:
        for headers in ({"Host": "evil.example"}, {"Host": "evil.example:8000"}):
            assert client.get("/v2", headers=headers).status_code == 400
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            found = client.post("/v1/predict", content=b"x", headers=headers)
            assert (found.status_code, found.json()["code"]) == (400, "OCT-E912")
        picture = encoded(Image.new("L", (64, 64)), "PNG")
        own = client.post("/v1/predict", content=picture, headers={"Origin": server.http, "Sec-Fetch-Site": "same-origin"})
        assert own.status_code == 200
        assert client.post("/v1/reload").json()["code"] == "OCT-E910"
