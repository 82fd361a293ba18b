"""An artifact that is opened and checked beside other work: no answer before all golden images, and the errors of before."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.imaging.preprocess import Float32, UInt8
from octc.runtimes import starting
from octc.runtimes.golden import check_golden
from octc.runtimes.registry import open_runtime
from octc.runtimes.room import Batch
from octc.runtimes.starting import Starting
from octc.store.artifacts import read_artifact, read_golden
from octc.store.find import Found
from octc.store.runs import Run


@pytest.fixture(params=["onnx-int8", "openvino-int8"])
def found(run: Run, request: pytest.FixtureRequest) -> Found:
    folder = run.artifacts / request.param
    return Found(folder, read_artifact(folder))


@pytest.mark.parametrize("size", [1, 8])
def test_the_report_and_the_answers_are_those_of_a_runtime(found: Found, size: int) -> None:
    images = read_golden(found.folder).inputs[:3]
    plain = open_runtime(found.folder, found.artifact, threads=1, batch=size)
    expected, report = Batch(size).run(plain, images), check_golden(found.folder, found.artifact, plain)
    batch = Batch(size)
    with Starting(found, 1, batch) as start:
        assert batch.run(start, images).tobytes() == expected.tobytes()
        checked = start.finish()
    assert checked.report.images == report.images
    assert checked.report.ok
    assert checked.report.agreement == report.agreement
    assert checked.report.delta_over_s == pytest.approx(report.delta_over_s, rel=1e-3)
    with pytest.raises(RuntimeError, match="is closed"):
        checked.runtime(images[:1])


class Wrong:
    """A runtime whose answers turn wrong from some image on; images: what it was given so far."""

    def __init__(self, good: int) -> None:
        self.good, self.images, self.facts, self.closed = good, 0, {"runtime": "x", "version": "1", "threads": 1}, False
        self.answers = iter(np.zeros(0))

    def __call__(self, batch: UInt8) -> Float32:
        golden = read_golden(self.folder)
        rows = [golden.logits[(golden.inputs == image).all(axis=(1, 2, 3)).argmax()] for image in batch]
        self.images += len(batch)
        return np.stack(rows) if self.images <= self.good else np.stack(rows)[:, ::-1].copy()

    def close(self) -> None:
        self.closed = True


def open_wrong(monkeypatch: pytest.MonkeyPatch, found: Found, good: int) -> Wrong:
    made = Wrong(good)
    made.folder = found.folder  # type: ignore[attr-defined]
    monkeypatch.setattr(starting, "open_runtime", lambda *_, **__: made)
    return made


def test_the_last_golden_image_decides_and_no_answer_is_given_before(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.artifacts / "onnx-int8"
    found = Found(folder, read_artifact(folder))
    images = read_golden(folder).inputs
    made = open_wrong(monkeypatch, found, len(images) - 1)
    taken: list[object] = []

    def records() -> Iterator[Float32]:
        taken.append(1)
        yield start(images[:1])

    with Starting(found, 1, Batch(1)) as start, pytest.raises(OctcError) as caught:
        start.with_first(records())
    assert caught.value.code == "OCT-E506"
    assert taken == [1]
    assert made.closed


def test_what_opening_raises_is_raised_by_whoever_waits(run: Run, tmp_path: Path) -> None:
    folder = run.artifacts / "onnx-int8"
    shutil.copy(folder / "golden.npz", tmp_path)
    found = Found(tmp_path, read_artifact(folder))  # the model is not there
    with Starting(found, 1, Batch(1)) as start:
        with pytest.raises((OctcError, OSError)):
            start(read_golden(folder).inputs[:1])
        with pytest.raises((OctcError, OSError)):
            start.finish()


def test_a_damaged_golden_file_leaves_no_thread(run: Run, tmp_path: Path) -> None:
    folder = run.artifacts / "onnx-int8"
    (tmp_path / "golden.npz").write_bytes(b"nothing")
    with pytest.raises(OctcError) as found:
        Starting(Found(tmp_path, read_artifact(folder)), 1, Batch(1))
    assert found.value.code == "OCT-E501"
    assert not [one for one in threading.enumerate() if one.name == "octc-start"]


def test_what_goes_wrong_with_the_first_record_is_raised_where_it_is_taken(run: Run) -> None:
    folder = run.artifacts / "onnx-int8"

    def records() -> Iterator[int]:
        raise OctcError("OCT-E904", "memory is short", hint="more of it")
        yield 1

    with Starting(Found(folder, read_artifact(folder)), 1, Batch(1)) as start:
        checked, rest = start.with_first(records())
        assert checked.report.ok
        with pytest.raises(OctcError, match="memory is short"):
            next(rest)
        _, rest = start.with_first(iter([1, 2, 3]))
        assert list(rest) == [1, 2, 3]
        _, rest = start.with_first(iter([]))
        assert list(rest) == []


def test_leaving_early_ends_the_thread(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.artifacts / "onnx-int8"
    found = Found(folder, read_artifact(folder))
    made = open_wrong(monkeypatch, found, 1000)
    start = Starting(found, 1, Batch(1))
    start(read_golden(folder).inputs[:1])
    start.close()
    assert made.closed
    assert not [one for one in threading.enumerate() if one.name == "octc-start"]
