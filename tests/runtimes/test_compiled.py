"""The cache of compiled networks: the same bits, made anew where anything is not as it was, and never in an artifact."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from octc.core.files import canonical_json, sha256_bytes
from octc.imaging.preprocess import UInt8
from octc.runtimes import compiled
from octc.runtimes.compiled import MOST, SUFFIX, cache_folder, key_of, read_compiled, write_compiled
from octc.runtimes.openvino import OvRuntime
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import Artifact, read_artifact
from octc.store.runs import Run

KEY = {"format": 1, "engine": "x"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTC_COMPILED", str(tmp_path / "compiled"))
    return tmp_path / "compiled"


@pytest.fixture
def artifact(run: Run) -> Artifact:
    return read_artifact(run.artifacts / "openvino-int8")


@pytest.fixture
def opened(run: Run, artifact: Artifact) -> Callable[..., OvRuntime]:
    def call(*, kept: bool = True, threads: int = 1, batch: int | None = None) -> OvRuntime:
        found = open_runtime(run.artifacts / "openvino-int8", artifact, threads=threads, batch=batch, kept=kept)
        assert isinstance(found, OvRuntime)
        return found

    return call


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def images(artifact: Artifact, count: int) -> UInt8:
    pre = artifact.preprocess
    return np.random.default_rng(3).integers(0, 256, (count, pre.channels, pre.size, pre.size), np.uint8)


def compilations(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Shapes that are compiled from here on."""
    found: list[list[int]] = []
    before = OvRuntime._compile

    def counted(self: OvRuntime, shape: list[int], settings: dict[str, object]) -> object:
        found.append(shape)
        return before(self, shape, settings)

    monkeypatch.setattr(OvRuntime, "_compile", counted)
    return found


def test_a_kept_network_gives_the_same_bits_and_facts(
    folder: Path, artifact: Artifact, opened: Callable[..., OvRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = opened(kept=False)
    expected = {count: plain(images(artifact, count)) for count in (1, 3)}
    assert not folder.exists()
    first = opened()
    assert {count: first(images(artifact, count)).tobytes() for count in (1, 3)} == {
        count: logits.tobytes() for count, logits in expected.items()
    }
    assert len(kept(folder)) == 2
    assert folder.stat().st_mode & 0o777 == 0o700
    compiled_now = compilations(monkeypatch)
    second = opened()
    for count, logits in expected.items():
        assert second(images(artifact, count)).tobytes() == logits.tobytes()
    assert compiled_now == []
    assert (second.facts, second.precision_found(), second.not_kept) == (plain.facts, plain.precision_found(), "")


def test_who_measures_does_without(folder: Path, opened: Callable[..., OvRuntime]) -> None:
    opened(kept=False)
    assert not folder.exists()


@pytest.mark.parametrize("harm", ["cut", "bit", "head", "foreign", "writable"])
def test_what_is_not_whole_and_ones_own_is_made_anew(
    folder: Path, artifact: Artifact, opened: Callable[..., OvRuntime], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    expected = opened()(images(artifact, 1)).tobytes()
    (path,) = kept(folder)
    data = path.read_bytes()
    if harm == "cut":
        path.write_bytes(data[:-100])
    elif harm == "bit":
        path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    elif harm == "head":
        path.write_bytes(b"x" + data)
    elif harm == "foreign":
        target = path.rename(path.with_name("elsewhere"))
        path.symlink_to(target)
    else:
        path.chmod(0o666)
    seen = compilations(monkeypatch)
    assert opened()(images(artifact, 1)).tobytes() == expected
    assert len(seen) == 1
    assert len(path.read_bytes()) > len(data) // 2
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert opened()(images(artifact, 1)).tobytes() == expected
    assert len(seen) == 1


def test_what_the_engine_does_not_take_is_made_anew(
    folder: Path, artifact: Artifact, opened: Callable[..., OvRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = opened()(images(artifact, 1)).tobytes()
    (path,) = kept(folder)
    head = path.read_bytes().partition(b"\n")[0]
    nonsense = b"no network of anybody" * 100
    whole = canonical_json({**json.loads(head), "sha256": sha256_bytes(nonsense)})
    path.write_bytes(whole + b"\n" + nonsense)
    path.chmod(0o600)
    seen = compilations(monkeypatch)
    assert opened()(images(artifact, 1)).tobytes() == expected
    assert len(seen) == 1
    assert path.stat().st_size > 10_000


def test_everything_that_decides_a_network_is_in_its_key(
    folder: Path, artifact: Artifact, opened: Callable[..., OvRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key_of(artifact, "openvino 1", {"shape": [1]}, {})
    assert key_of(artifact, "openvino 1", {"shape": [1]}, {"HOME": "/x"}) == before
    for other in (
        key_of(artifact, "openvino 2", {"shape": [1]}, {}),
        key_of(artifact, "openvino 1", {"shape": [2]}, {}),
        key_of(artifact, "openvino 1", {"shape": [1]}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    ):
        assert other != before
    monkeypatch.setattr(compiled, "read_flags", lambda: ("another processor", ("sse2",)))
    assert key_of(artifact, "openvino 1", {"shape": [1]}, {}) != before
    monkeypatch.undo()
    monkeypatch.setenv("OCTC_COMPILED", str(folder))
    for batch in (1, 2):
        opened(batch=batch)
    assert len(kept(folder)) == 2


def test_a_place_that_cannot_be_written_to_is_told_and_changes_nothing(
    artifact: Artifact, opened: Callable[..., OvRuntime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = opened(kept=False)(images(artifact, 1)).tobytes()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCTC_COMPILED", str(tmp_path / "file" / "compiled"))
    found = opened()
    assert found(images(artifact, 1)).tobytes() == expected
    assert "is not kept in" in found.not_kept
    monkeypatch.setenv("OCTC_COMPILED", "off")
    assert opened().not_kept == ""


def test_the_oldest_networks_go_and_other_files_stay(folder: Path) -> None:
    folder.mkdir()
    left = folder / f".tmp-4194304-{'0' * 64}{SUFFIX}"  # no process has this number
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    for number in range(MOST + 3):
        write_compiled(folder, {**KEY, "number": number}, b"data")
        os.utime(max(kept(folder), key=lambda path: path.stat().st_mtime), (number, number))
    mine = folder / "notes.txt"
    mine.write_text("x")
    write_compiled(folder, KEY, b"data")
    assert len(kept(folder)) == MOST
    assert read_compiled(folder, {**KEY, "number": 0}) is None
    assert read_compiled(folder, {**KEY, "number": MOST + 2}) == read_compiled(folder, KEY) == b"data"
    assert mine.exists()
    assert not left.exists()


def test_a_clock_that_was_set_back_does_not_let_go_of_what_was_written_just_now(folder: Path) -> None:
    """The later a file of before says it was written, the longer it would stay."""
    later = time.time() + 86_400 * 30
    for number in range(MOST):
        write_compiled(folder, {**KEY, "number": number}, b"before")
        path = next(path for path in kept(folder) if path.stat().st_mtime < later - 1)
        os.utime(path, (later + number, later + number))
    for number in range(3):
        write_compiled(folder, {**KEY, "now": number}, b"now")
    assert len(kept(folder)) == MOST
    assert [read_compiled(folder, {**KEY, "now": number}) for number in range(3)] == [b"now"] * 3
    assert [read_compiled(folder, {**KEY, "number": number}) for number in range(4)] == [None] * 3 + [b"before"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OCTC_COMPILED": "off", "HOME": "/h"}, None),
        ({"OCTC_COMPILED": "", "HOME": "/h"}, None),
        ({"OCTC_COMPILED": "/x", "HOME": "/h"}, Path("/x")),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, Path("/c/octc/compiled")),
        ({"HOME": "/h"}, Path("/h/.cache/octc/compiled")),
        ({}, None),
    ],
)
def test_where_networks_are_kept(environ: dict[str, str], expected: Path | None) -> None:
    assert cache_folder(environ) == expected
