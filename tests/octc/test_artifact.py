"""An artifact folder is either exactly what its manifest says, or refused with exit 3 and the entry named."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.imaging.preprocess import Preprocess
from octc.store import artifacts as module
from octc.store.artifacts import GOLDEN, MANIFEST, Artifact, Golden, read_artifact, read_golden, write_golden, write_manifest

Value = dict[str, Any]
REFUSED = ("OCT-E501", "OCT-E502", "OCT-E504", "OCT-E509")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small artifact, whole and right."""
    place = tmp_path / "onnx-fp32"
    place.mkdir()
    (place / "model.onnx").write_bytes(bytes(range(256)))
    (place / "BUILD.txt").write_text("how to\n")
    write_golden(place, a_golden())
    made = Artifact(
        name="onnx-fp32", role="student", model="test_resnet", target="onnx", precision="fp32", classes=("a", "b"),
        preprocess=Preprocess(16), lineage={"run": "r-0001"}, details={"opset": 20}, main_file="model.onnx",
    )  # fmt: skip
    write_manifest(place, made)
    return place


def a_golden() -> Golden:
    zeros = np.zeros((8, 1, 16, 16), np.uint8)
    return Golden(zeros, np.zeros((8, 2), np.float32), np.zeros(30, np.uint8), zeros[:1])


def refusal(folder: Path) -> OctcError:
    """The error that reading ends with; it must be a refusal of the input."""
    with pytest.raises(OctcError) as caught:
        read_artifact(folder)
    assert caught.value.code in REFUSED
    assert caught.value.exit_code == 3
    return caught.value


def outcome(folder: Path) -> str | Artifact:
    """What reading ends with: an artifact, or the code of its refusal."""
    try:
        return read_artifact(folder)
    except OctcError as error:
        return error.code


def rewrite(folder: Path, change: Callable[[Value], None]) -> None:
    value = json.loads((folder / MANIFEST).read_text())
    change(value)
    (folder / MANIFEST).write_text(json.dumps(value))


def test_what_is_written_is_read(folder: Path) -> None:
    artifact = read_artifact(folder)
    assert (artifact.name, artifact.classes, artifact.preprocess) == ("onnx-fp32", ("a", "b"), Preprocess(16))
    assert sorted(artifact.files) == ["BUILD.txt", GOLDEN, "model.onnx"]
    np.testing.assert_array_equal(read_golden(folder).inputs, a_golden().inputs)


def test_results_may_be_added_later(folder: Path) -> None:
    for name in ("verify.json", "bench-box_1.json", "samples/row/1.npz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    assert read_artifact(folder).name == "onnx-fp32"
    assert sorted(write_manifest(folder, read_artifact(folder)).files) == ["BUILD.txt", GOLDEN, "model.onnx"]


@pytest.mark.parametrize("name", ["model.onnx", "BUILD.txt", GOLDEN])
def test_b01_one_flipped_byte_in_any_file(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    for place in (0, len(data) // 2, len(data) - 1):
        turned = data.copy()
        turned[place] ^= 1
        (folder / name).write_bytes(turned)
        error = refusal(folder)
        assert (error.code, name in error.message) == ("OCT-E501", True)
    (folder / name).write_bytes(bytes(data) + b"x")
    assert refusal(folder).code == "OCT-E501"


def test_b01_any_flipped_byte_of_the_manifest_is_refused_or_harmless(folder: Path) -> None:
    """A turned byte may leave other valid text (a name, a date), but never ends in another kind of error."""
    data = (folder / MANIFEST).read_bytes()
    for place in range(0, len(data), 3):
        turned = bytearray(data)
        turned[place] ^= 0x15
        (folder / MANIFEST).write_bytes(turned)
        found = outcome(folder)
        assert isinstance(found, Artifact) or found in REFUSED, (place, found)


@pytest.mark.parametrize("name", ["model.onnx", "BUILD.txt", GOLDEN])
def test_b02_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{name} is listed but missing" in refusal(folder).message


@pytest.mark.parametrize(
    "name",
    ["run.sh", "sub/more.bin", "verify.json.bak", ".hidden", "bench-.sh", "samples", ".tmp-1-run.sh", ".tmp-x-verify.json"],
)
def test_b02_extra_file(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    assert f"{name} is not listed" in refusal(folder).message


@pytest.mark.parametrize("name", ["verify.json", "verify-device.json", "bench-box.json", "artifact.sig.json", MANIFEST])
def test_an_artifact_is_whole_while_a_result_is_written_beside_it(folder: Path, name: str) -> None:
    (folder / f".tmp-{os.getpid()}-{name}").write_text("{")
    assert read_artifact(folder).name


@pytest.mark.parametrize("name", [
    "../secret", "/etc/passwd", "a/../../secret", "./model.onnx", "a//b", "", ".", "..", "model.onnx\0", "..\\secret", "C:\\x",
    "new\nline", "x" * 5000,
])  # fmt: skip
def test_b02_unsafe_name_in_the_manifest(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("secret")
    entry = {"sha256": sha256_file(folder.parent / "secret"), "bytes": 6}
    rewrite(folder, lambda value: value["files"].update({name: entry}))
    assert refusal(folder).code == "OCT-E502"
    rewrite(folder, lambda value: value["files"].pop(name))
    rewrite(folder, lambda value: value.update(main_file=name))
    assert refusal(folder).code == "OCT-E502"


def link_file(folder: Path) -> str:
    (folder / "model.onnx").rename(folder.parent / "elsewhere")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere")
    return "model.onnx is a symbolic link"


def link_inside(folder: Path) -> str:
    (folder / "verify.json").symlink_to(folder / "BUILD.txt")
    return "verify.json is not listed"


def link_folder(folder: Path) -> str:
    (folder / "samples").symlink_to("/etc")
    return "samples is not listed"


def link_manifest(folder: Path) -> str:
    (folder / MANIFEST).rename(folder.parent / "elsewhere")
    (folder / MANIFEST).symlink_to(folder.parent / "elsewhere")
    return f"{MANIFEST} is not listed"


def link_loop(folder: Path) -> str:
    (folder / "BUILD.txt").unlink()
    (folder / "BUILD.txt").symlink_to("BUILD.txt")
    return "BUILD.txt is a symbolic link"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe is not listed"


def listed_pipe(folder: Path) -> str:
    (folder / "BUILD.txt").unlink()
    os.mkfifo(folder / "BUILD.txt")
    return "BUILD.txt is listed but missing"


@pytest.mark.parametrize("spoil", [link_file, link_inside, link_folder, link_manifest, link_loop, pipe, listed_pipe])
def test_b02_links_and_pipes(folder: Path, spoil: Callable[[Path], str]) -> None:
    assert spoil(folder) in refusal(folder).message


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a manifest that the reader looks at."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return changed


WRONG = (..., None, True, -1, 0, 10**400, 1e308, 2.5, "", "x" * 9000, "\u202e\x1b[2J", [], ["a"], [[]], {}, {"a": {"b": 1}})


def test_every_field_dropped_or_of_a_wrong_type_is_refused_in_one_way(folder: Path) -> None:
    """A manifest with anything in it: an artifact, or E501, E502, E504, E509. `lineage` and `details` hold free facts."""
    value = json.loads((folder / MANIFEST).read_text())
    kept = 0
    for path in places(value):
        for new in WRONG:
            changed = put(value, path, new)
            (folder / MANIFEST).write_text(json.dumps(changed))
            found = outcome(folder)
            if isinstance(found, str):
                assert found in REFUSED, (path, new, found)
                continue
            kept += 1
            whole = {"task": "multiclass", **changed}  # the one field with a default
            assert json.loads(json.dumps(found.to_json())) == whole, (path, new)  # taken over, not bent
    assert kept > 0


@pytest.mark.parametrize("text", [
    "", "null", "[]", "3", '"x"', "{", '{"schema_version": "2.0"}', '{"schema_version": NaN}', "[" * 100_000, "\ufeff{}",
    '{"a": 1' + "0" * 5000 + "}",
])  # fmt: skip
def test_what_is_no_manifest(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    assert refusal(folder).code == ("OCT-E509" if "2.0" in text else "OCT-E502")


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00{}")
    assert refusal(folder).code == "OCT-E502"


def test_a_manifest_of_a_hundred_megabytes_is_not_read(folder: Path) -> None:
    with (folder / MANIFEST).open("r+b") as stream:
        stream.truncate(100 << 20)
    assert "the limit is" in refusal(folder).message


def test_no_manifest_is_no_artifact(tmp_path: Path) -> None:
    assert outcome(tmp_path) == "OCT-E107"
    (tmp_path / MANIFEST).mkdir()
    assert outcome(tmp_path) == "OCT-E107"


def preprocess(**change: Any) -> Value:
    return {"preprocess": {**Preprocess(16).to_json(), **change}}


@pytest.mark.parametrize("change", [
    {"target": "torch", "precision": "int8"}, {"classes": ["a", "a"]}, {"classes": ["a"]}, {"classes": "ab"}, {"role": "boss"},
    {"name": "../x"}, {"name": "a b"}, preprocess(channels=2), preprocess(resize="nearest"), preprocess(size=10**9),
    preprocess(std=[0, 1, 1]), preprocess(mean=[1, 1]),
])  # fmt: skip
def test_values_that_would_fail_later(folder: Path, change: Value) -> None:
    rewrite(folder, lambda value: value.update(change))
    assert refusal(folder).code == "OCT-E502"


def test_the_largest_file_is_said_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 100)
    assert refusal(folder).code == "OCT-E504"


@pytest.mark.parametrize("name", [".DS_Store", "._model.onnx", "Thumbs.db", "desktop.ini", "@eaDir/model.onnx@SynoEAStream"])
def test_what_a_file_manager_left_is_refused_and_its_hint_takes_it_out(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    error = refusal(folder)
    assert (error.code, error.place) == ("OCT-E502", str(folder / name))
    command = error.hint.partition("   (")[0]
    subprocess.run(["sh", "-c", command], check=True)
    assert read_artifact(folder).name == "onnx-fp32"


@pytest.mark.parametrize("name", ["notes.txt", ".git", "model2.onnx"])
def test_nobody_is_told_to_remove_what_somebody_may_want(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"x")
    error = refusal(folder)
    assert error.code == "OCT-E502"
    assert "rm " not in error.hint


def test_a_newer_manifest_is_named_with_its_file(folder: Path) -> None:
    rewrite(folder, lambda value: value.update(schema_version="2.0"))
    assert (refusal(folder).code, refusal(folder).place) == ("OCT-E509", str(folder / MANIFEST))


def test_an_artifact_is_whole_while_samples_beside_it_get_their_name_or_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's rglob ends with FileNotFoundError where a folder goes that it has listed, and the artifact was refused."""
    expected, later = read_artifact(folder), module.LATER
    for name in (".tmp-1-bench-1", ".tmp-1-bench-2"):
        (folder / "samples" / name).mkdir(parents=True)
        (folder / "samples" / name / "row.csv").write_text("1")

    class Meanwhile:
        def match(self, name: str) -> object:
            for other in (folder / "samples").iterdir():
                if name.startswith("samples/.tmp") and other.name not in name:
                    shutil.rmtree(other)
            return later.match(name)

    monkeypatch.setattr(module, "LATER", Meanwhile())
    assert read_artifact(folder) == expected
    assert len(list((folder / "samples").iterdir())) == 1
