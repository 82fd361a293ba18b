"""Running models over a set: one record per picture, several models, several views; records on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.bench.parity import inference as accuracy
from octc.bench.parity.inference import CHUNK, image_ids, measure, measure_all, read_records, records_of, write_records
from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.datasets.base import Sample
from octc.imaging.decode import Values
from octc.imaging.preprocess import VIEWS, Float32, Preprocess, UInt8
from tests.stand_ins import FakeRuntime

PRE = Preprocess(32)
COUNT = CHUNK + 5


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Grey pictures whose left half is brighter the later they come; the third repeats the second."""
    out = []
    for i in range(COUNT):
        pixels = np.zeros((40, 48), np.uint8)
        pixels[:, :24] = 10 * (1 if i == 2 else i)
        Image.fromarray(pixels).save(tmp_path / f"{i:03d}.png")
        out.append(Sample(f"{i:03d}.png", i % 3, f"p{i // 2}", None, sha256_file(tmp_path / f"{i:03d}.png")))
    return out


def halves(batch: UInt8) -> Float32:
    """Mean of the left and of the right half."""
    return np.stack([batch[..., :16].mean(axis=(1, 2, 3)), batch[..., 16:].mean(axis=(1, 2, 3))], axis=1).astype(np.float32)


def test_logits_are_in_the_order_of_the_samples_and_carry_their_ids(samples: list[Sample], tmp_path: Path) -> None:
    model = FakeRuntime(halves)
    told: list[int] = []
    found = measure(model, PRE, samples, tmp_path, progress=told.append, artifact="abc")
    assert found.logits.shape == (COUNT, 1, 2)
    expected = [10 * (1 if i == 2 else i) for i in range(COUNT)]
    assert np.abs(found.logits[:, 0, 0] - np.array(expected)).max() < 8  # resizing blurs the edge
    assert np.all(np.diff(found.logits[[0, 1, *range(3, COUNT)], 0, 0]) > 0)
    assert (found.labels, found.patients[:3]) == (tuple(s.label for s in samples), ("p0", "p0", "p1"))
    assert (sum(told), model.calls) == (COUNT, [CHUNK, 5])
    assert found.artifact == "abc"


def test_equal_contents_have_ids_of_their_own(samples: list[Sample]) -> None:
    ids = image_ids(samples)
    assert len(set(ids)) == COUNT
    assert ids[2] == f"{samples[1].sha256}#2"


def test_every_view_is_run_in_pieces_and_any_of_them_can_be_taken(samples: list[Sample], tmp_path: Path) -> None:
    model = FakeRuntime(halves)
    found = measure(model, PRE, samples, tmp_path, VIEWS["5"])
    assert found.logits.shape == (COUNT, 5, 2)
    assert max(model.calls) == CHUNK
    alone = measure(FakeRuntime(halves), PRE, samples, tmp_path)
    np.testing.assert_array_equal(found.only(("identity",)).logits, alone.logits)
    mirrored = found.only(("hflip",)).logits[:, 0]
    np.testing.assert_allclose(mirrored, alone.logits[:, 0, ::-1], atol=1.0)


def test_several_models_share_one_decoding(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    decoded: list[str] = []
    read = accuracy.read_picture

    def counting(root: Path, sample: Sample, values: Values | None) -> object:
        decoded.append(sample.path)
        return read(root, sample, values)

    monkeypatch.setattr(accuracy, "read_picture", counting)
    found = measure_all({"a": FakeRuntime(halves), "b": FakeRuntime(lambda x: -halves(x))}, PRE, samples, tmp_path)
    np.testing.assert_array_equal(found["a"], -found["b"])
    assert sorted(decoded) == [s.path for s in samples]


@pytest.mark.parametrize(("content", "code"), [(b"", "OCT-E201"), (b"not a picture", "OCT-E202")])
def test_a_picture_that_cannot_be_read_is_named(samples: list[Sample], tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / samples[7].path).write_bytes(content)
    with pytest.raises(OctcError) as caught:
        measure(FakeRuntime(halves), PRE, samples, tmp_path)
    assert caught.value.code == code
    assert caught.value.place is not None
    assert caught.value.place.endswith("007.png")


def test_records_come_back_as_they_were_written(samples: list[Sample], tmp_path: Path) -> None:
    people = [replace(s, patient=None) if i == 4 else s for i, s in enumerate(samples)]
    logits = np.random.default_rng(0).normal(size=(COUNT, 2, 2)).astype(np.float32)
    one = records_of(people, logits, ("identity", "hflip"), "abc", PRE, {"runtime": "x", "threads": 2})
    path = tmp_path / "records" / "one.npz"
    write_records(path, one)
    back = read_records(path)
    np.testing.assert_array_equal(back.logits, logits)
    assert replace(back, logits=logits) == replace(one, logits=logits)
    assert back.preprocess_sha256 == one.preprocess_sha256
    assert back.facts == {"runtime": "x", "threads": 2}
    assert [p.name for p in path.parent.iterdir()] == ["one.npz"]


def test_damaged_records_are_refused(samples: list[Sample], tmp_path: Path) -> None:
    one = records_of(samples, np.zeros((COUNT, 1, 2), np.float32), ("identity",), "abc", PRE)
    path = tmp_path / "one.npz"
    write_records(path, one)
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"PK\x03\x04 nothing", data.replace(b"logits.npy", b"lagits.npy")):
        path.write_bytes(damaged)
        with pytest.raises(OctcError) as caught:
            read_records(path)
        assert caught.value.code == "OCT-E708"
