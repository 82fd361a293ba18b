"""POST /v1/predict answers what `octc predict --json` does, for images, volumes and what is neither."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from octc.datasets.synthetic.volumes import write_volumes
from octc.serve.uploads import plain_name
from octc.store.runs import Run
from tests.conftest import Octc
from tests.serve.process import Serving, serving

HERE = True  # commands in this process (tests/conftest.py)

BAD = {"broken.png": b"\x89PNG\r\n\x1a\n and no more", "words.txt.png": b"no picture", "empty.jpg": b""}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("volumes") / "clinic"
    write_volumes(place, ("dicom", "vol", "fda"), patients=1, frames=4)
    return place


def asked(octc: Octc, folder: Path, names: list[str], *words: str) -> dict[str, Any]:
    done = octc("predict", *words[:1], *names, "--json", *words[1:], cwd=folder)
    found: dict[str, Any] = json.loads(done.stdout)["data"]
    return found


def posted(client: httpx2.Client, folder: Path, names: list[str], query: str = "") -> dict[str, Any]:
    found = client.post(f"/v1/predict{query}", files=[("file", (name, (folder / name).read_bytes())) for name in names])
    assert found.status_code == 200, found.text
    value: dict[str, Any] = found.json()
    return value


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Word for word, but for the folder of the artifact, and which model answered."""
    assert ours.pop("served")["model"] == theirs["artifact"]["name"]
    assert ours["artifact"].pop("folder") == theirs["artifact"]["name"]
    theirs["artifact"].pop("folder")
    theirs.pop("batch", None)  # how the command went through its inputs
    assert ours == theirs


@pytest.mark.parametrize("words", ["", "--tta hflip", "--tta 5"])
def test_images_and_what_is_none(
    words: str, octc: Octc, server: Serving, run: Run, pictures: list[Path], tmp_path: Path
) -> None:
    for path in pictures[::9]:
        shutil.copy(path, tmp_path)
    for name, data in BAD.items():
        (tmp_path / name).write_bytes(data)
    names = sorted(path.name for path in tmp_path.iterdir())
    theirs = asked(octc, tmp_path, names, str(run.artifacts / "onnx-int8"), *words.split())
    query = "" if not words else f"?tta={words.split()[1]}"
    with server.client() as client:
        ours = posted(client, tmp_path, names, query)
    assert ours["summary"]["failed"] == len(BAD)
    same(ours, theirs)


def test_volumes_with_an_answer_for_each_eye(octc: Octc, server: Serving, run: Run, clinic: Path) -> None:
    names = sorted(path.name for path in clinic.iterdir() if path.suffix in (".dcm", ".vol", ".fda"))
    theirs = asked(octc, clinic, names, str(run.artifacts / "openvino-int8"), "--aggregation", "top")
    with server.client() as client:
        ours = posted(client, clinic, names, "?model=openvino-int8&aggregation=top")
    assert sum("eye" in one for one in ours["records"]) == len(names)
    same(ours, theirs)


def test_a_body_that_is_the_file(server: Serving, pictures: list[Path]) -> None:
    data = pictures[0].read_bytes()
    with server.client() as client:
        form = client.post("/v1/predict", files={"file": ("a.png", data)}).json()
        plain = client.post("/v1/predict?name=a.png", content=data, headers={"Content-Type": "image/png"}).json()
    assert form["records"] == plain["records"]
    assert form["records"][0]["label"]


def test_previews_and_maps(server: Serving, pictures: list[Path], clinic: Path) -> None:
    with server.client() as client:
        found = client.post("/v1/predict?previews=true", files={"file": ("a.png", pictures[0].read_bytes())}).json()
        assert found["records"][0]["preview"].startswith("data:image/jpeg;base64,")
        found = client.post("/v1/map", files={"file": ("a.png", pictures[0].read_bytes())}).json()
        assert found["map"].startswith("data:image/png;base64,")
        assert "Occlusion" in " ".join(found["caption"])
        volume = next(clinic.glob("*.dcm"))
        found = client.post("/v1/map?frame=3", files={"file": (volume.name, volume.read_bytes())}).json()
        assert found["record"]["frame"] == 3
        assert (found["map"] is None) == (found["record"]["label"] is None)
        late = client.post("/v1/map?frame=4", files={"file": (volume.name, volume.read_bytes())})
        assert late.status_code == 404


WRONG = (
    ("?tta=7", 400), ("?aggregation=best", 400), ("?model=other", 404), ("?model=", 404), ("?version=1", 404), ("?a=b", 400),
    ("?tta=none&tta=5", 400), ("?allow_cut=maybe", 400), ("?model=onnx-int8&version=", 404),
)  # fmt: skip


@pytest.mark.parametrize(("query", "status"), WRONG)
def test_wishes_that_are_not_known_are_refused(query: str, status: int, server: Serving, pictures: list[Path]) -> None:
    with server.client() as client:
        found = client.post(f"/v1/predict{query}", files={"file": ("a.png", pictures[0].read_bytes())})
    assert found.status_code == status
    assert set(found.json()) == {"error", "code", "help"}


FORMS = (
    b"", b"--x", b"--x\r\n", b"--x--\r\n", b"--x\r\nContent-Disposition: form-data; name=file; filename=a.png\r\n\r\nabc",
    b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nabc\r\n--x--\r\n", b"--y\r\n\r\n\r\n--y--\r\n",
    b"--x\r\nA: " + b"b" * 20000 + b"\r\n\r\n\r\n--x--\r\n", b"--x\r\n\r\nabc\r\n--x--\r\n",
)  # fmt: skip


@pytest.mark.parametrize("body", FORMS, ids=range(len(FORMS)))
def test_forms_that_are_damaged(body: bytes, server: Serving) -> None:
    with server.client() as client:
        for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "multipart/form-data; boundary=" + "z" * 5000):
            found = client.post("/v1/predict", content=body, headers={"Content-Type": kind})
            assert found.status_code in (400, 413), found.text


NAMES = {
    "../../etc/passwd": "passwd", "C:\\scans\\eye.png": "eye.png", ".hidden": "hidden", "": "upload", "..": "upload",
    "/": "upload", "a\nb.png": "a_b.png", "ü ö.png": "ü ö.png", "x" * 400 + ".png": "x" * 176 + ".png",
}  # fmt: skip


@pytest.mark.parametrize(("given", "kept"), NAMES.items())
def test_no_name_leaves_its_folder(given: str, kept: str, server: Serving, pictures: list[Path]) -> None:
    assert plain_name(given) == kept


def test_an_upload_leaves_nothing_behind_and_no_name_in_the_log(
    warm: tuple[str, ...], run: Run, pictures: list[Path], clinic: Path, tmp_path: Path
) -> None:
    with serving(warm, run.artifacts / "onnx-int8", "--uploads", tmp_path) as found, found.client() as client:
        volume = next(clinic.glob("*.dcm"))
        for name in ("SMITH_JANE_1950.png", "../SMITH.png", "SMITH.dcm"):
            data = volume.read_bytes() if name.endswith("dcm") else pictures[0].read_bytes()
            answer = client.post("/v1/predict", files={"file": (name, data)}, headers={"X-Request-ID": "r-1"})
            assert answer.status_code == 200
            assert str(tmp_path) not in answer.text
        assert client.post("/v1/predict", content=b"", headers={"X-Request-ID": "a b"}).headers["x-request-id"] != "a b"
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.iterdir()) == []
    assert "SMITH" not in json.dumps(found.lines) + "".join(found.plain)
    assert [line["request"] for line in found.events("request")][:3] == ["r-1"] * 3


def test_uploads_of_a_server_that_was_killed_are_removed_by_the_next_one_and_those_of_a_living_one_stay(
    warm: tuple[str, ...], run: Run, pictures: list[Path], tmp_path: Path
) -> None:
    """Half an upload is there when the server is killed; a second server lives meanwhile."""

    def begun(found: Serving) -> socket.socket:
        host, port = found.place.split(":")
        line = socket.create_connection((host, int(port)), timeout=60)
        line.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: {found.place}\r\nContent-Length: 100000\r\n\r\n".encode())
        line.sendall(pictures[0].read_bytes()[:1000])
        return line

    def uploads() -> list[Path]:
        return [path for path in tmp_path.rglob("*") if path.is_file()]

    def wait_for(count: int) -> None:
        end = time.monotonic() + 60
        while len(uploads()) != count and time.monotonic() < end:
            time.sleep(0.02)
        assert len(uploads()) == count

    words = (warm, run.artifacts / "onnx-int8", "--uploads", tmp_path)
    with serving(*words) as living, begun(living):
        wait_for(1)
        (of_living,) = uploads()
        own = ((sys.executable,), *words[1:])  # a process that is killed at once, without one that passes it on
        with serving(*own) as killed, begun(killed):
            wait_for(2)
            killed.process.kill()
            killed.process.wait(60)
        assert len(uploads()) == 2
        with serving(*words) as third, third.client() as client:
            assert uploads() == [of_living]
            data = pictures[0].read_bytes()
            assert client.post("/v1/predict", files={"file": ("a.png", data)}).status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_an_upload_without_room_is_answered_and_the_next_one_too(run: Run, pictures: list[Path], tmp_path: Path) -> None:
    """A file that is longer than the server may write (32 KiB), as on a full disk: no client that has gone."""
    limited = ("sh", "-c", 'ulimit -f 64; exec "$@"', "sh", sys.executable)  # blocks of 512 bytes
    small = pictures[0].read_bytes()
    large = small + bytes(200_000)
    with serving(limited, run.artifacts / "onnx-int8", "--uploads", tmp_path) as found, found.client() as client:
        answer = client.post("/v1/predict", files={"file": ("a.png", large)})
        assert (answer.status_code, answer.json()["code"]) == (507, "OCT-E904")
        assert str(tmp_path) not in answer.text
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        assert len(small) < 32_768
        assert client.post("/v1/predict", files={"file": ("a.png", small)}).status_code == 200
    assert [line["status"] for line in found.events("request")] == [507, 200]


def test_json_in_place_of_a_file_is_told_where_tensors_go(server: Serving) -> None:
    with server.client() as client:
        found = client.post("/v1/predict", json={"image": "aGVsbG8="})
    assert found.status_code == 415
    assert found.json()["code"] == "OCT-E913"
    assert "/v2/models/" in found.json()["help"]
