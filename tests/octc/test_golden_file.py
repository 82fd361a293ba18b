"""golden.npz is opened as plain arrays of known types, or refused: no pickle, no bomb, no other kind of error."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.store.artifacts import GOLDEN, Golden, read_golden, write_golden

Value = dict[str, Any]


def a_golden() -> Golden:
    zeros = np.zeros((8, 1, 16, 16), np.uint8)
    return Golden(zeros, np.zeros((8, 2), np.float32), np.zeros(30, np.uint8), zeros[:1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "artifact"
    place.mkdir()
    write_golden(place, a_golden())
    return place


def packed(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def arrays(**change: Any) -> Value:
    golden = a_golden()
    names = ("inputs", "logits", "source_png", "source_input")
    return {**{name: getattr(golden, name) for name in names}, **change}


def saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


class Bomb:
    """Unpickled, it would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


BAD_GOLDEN: dict[str, bytes] = {
    "pickled objects": packed(**arrays(inputs=np.array([Bomb()], dtype=object))),
    "a pickle": pickle.dumps(Bomb()),
    "nothing": b"",
    "text": b"golden",
    "one array": saved(np.zeros(3)),
    "an array missing": packed(inputs=a_golden().inputs),
    "floats": packed(**arrays(inputs=np.zeros((8, 1, 16, 16), np.float32))),
    "another shape": packed(**arrays(logits=np.zeros(8, np.float32))),
    "another count": packed(**arrays(logits=np.zeros((7, 2), np.float32))),
    "no image": packed(**arrays(inputs=np.zeros((0, 1, 16, 16), np.uint8), logits=np.zeros((0, 2), np.float32))),
    "not finite": packed(**arrays(logits=np.full((8, 2), np.nan, np.float32))),
}


@pytest.mark.parametrize("kind", BAD_GOLDEN)
def test_golden_files_that_are_none(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / GOLDEN).write_bytes(BAD_GOLDEN[kind])
    with pytest.raises(OctcError) as caught:
        read_golden(folder)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E502", 3)
    assert not (folder.parent / "executed").exists()


def test_a_golden_file_that_unpacks_to_gigabytes_is_not_unpacked(folder: Path) -> None:
    with zipfile.ZipFile(folder / GOLDEN, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("inputs.npy", "w") as stream:
        for _ in range(257):
            stream.write(bytes(1 << 20))
    assert (folder / GOLDEN).stat().st_size < 1 << 20
    with pytest.raises(OctcError, match="the limit is"):
        read_golden(folder)


def test_a_golden_header_that_claims_terabytes(folder: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (1 << 42,)})
    with zipfile.ZipFile(folder / GOLDEN, "w") as archive:
        for name in ("inputs", "logits", "source_png", "source_input"):
            archive.writestr(f"{name}.npy", stream.getvalue())
    with pytest.raises(OctcError) as caught:
        read_golden(folder)
    assert caught.value.code == "OCT-E502"


def test_any_damage_of_a_golden_file_ends_in_one_way(folder: Path) -> None:
    data = (folder / GOLDEN).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        turned = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            turned[place] = int(rng.integers(0, 256))
        (folder / GOLDEN).write_bytes(turned[: int(rng.integers(1, len(data) + 1))] if rng.random() < 0.2 else turned)
        with contextlib.suppress(OctcError):
            read_golden(folder)
            outcomes.add("read")
            continue
        outcomes.add("refused")
    assert "refused" in outcomes
