"""What one query is: inputs in rotation, the parts of an end-to-end query, outputs that are compared; and which pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.bench.timing.images import choose_pictures, spread
from octc.bench.timing.queries import (
    INPUTS,
    Parts,
    Picture,
    device_query,
    end_to_end_query,
    in_batches,
    read_pictures,
    same_output,
    tensors,
)
from octc.core.errors import OctcError
from octc.imaging.decode import decode_image
from octc.imaging.preprocess import Float32, Preprocess, UInt8
from octc.stats.metrics import softmax
from octc.store.find import Found, find_artifacts
from octc.store.runs import Run
from tests.tiny_artifacts import copied, shared_run

PRE = Preprocess(32)


def picture(level: int) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 48), level, np.uint8)).save(stream, format="PNG")
    return Picture(stream.getvalue(), f"{level}.png")


PICTURES = [picture(level) for level in range(64)]


def mean_model(batch: UInt8) -> Float32:
    """Logits (mean, 0) of every image."""
    means = batch.astype(np.float32).mean(axis=(1, 2, 3))
    return np.stack([means, np.zeros_like(means)], axis=1)


@pytest.mark.parametrize("batch", [1, 8])
def test_device_row_turns_through_64_different_inputs(batch: int) -> None:
    inputs = tensors(PICTURES, PRE, batch)
    assert len(inputs) == INPUTS
    assert {tensor.shape for tensor in inputs} == {(batch, 1, 32, 32)}
    assert len({tensor.tobytes() for tensor in inputs}) == INPUTS
    query = device_query(mean_model, inputs)
    assert query(3)[0, 0] == 3.0
    assert query(INPUTS + 3)[0, 0] == 3.0


def test_end_to_end_row_does_what_predict_does_and_times_its_parts() -> None:
    parts = Parts()
    query = end_to_end_query(mean_model, PICTURES, PRE, 2, parts)
    labels, probabilities = query(5)
    logits = mean_model(np.concatenate([PRE.prepare(decode_image(p.data, p.place).image) for p in PICTURES[10:12]]))
    assert np.array_equal(probabilities, softmax(logits))
    assert list(labels) == [0, 0]
    query(6)
    assert {name: len(times) for name, times in parts.times.items()} == dict.fromkeys(parts.times, 2)
    assert all(duration >= 0 for times in parts.times.values() for duration in times)
    parts.clear()
    assert not any(parts.times.values())


def test_outputs_are_the_same_to_the_bit_or_not_the_same() -> None:
    one = mean_model(tensors(PICTURES, PRE, 1)[5])
    assert same_output(one, one.copy())
    assert same_output((one, one), (one.copy(), one.copy()))
    assert not same_output(one, np.nextafter(one, np.float32(9)))
    assert not same_output((one,), (one, one))


def test_a_model_of_one_batch_size_takes_any_number() -> None:
    sizes: list[int] = []

    def fixed(batch: UInt8) -> Float32:
        sizes.append(len(batch))
        return mean_model(batch)

    images = np.concatenate(tensors(PICTURES, PRE, 1))[:10]
    assert np.array_equal(in_batches(fixed, 4)(images), mean_model(images))
    assert sizes == [4, 4, 4]


def test_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OctcError, match="cannot be read") as caught:
        read_pictures([str(tmp_path / "gone.png")])
    assert caught.value.place is not None
    assert "gone.png" in caught.value.place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


def found(folder: Path) -> Found:
    return find_artifacts(str(folder), folder, {})[0][0]


def test_pictures_are_the_runs_own_where_they_are_here(run: Run, tmp_path: Path) -> None:
    paths, words = choose_pictures(None, found(run.artifacts / "onnx-fp32"), run.path.parent, None, {}, tmp_path)
    assert len(set(paths)) == INPUTS
    assert words == "64 val and train images of folder"
    assert {Path(path).parent.name for path in paths} == {"bright", "dark", "lying", "upright"}


def test_copied_artifact_is_timed_with_drawn_pictures(run: Run, tmp_path: Path) -> None:
    folder = copied(run, "onnx-fp32", tmp_path / "bundles")
    paths, words = choose_pictures(None, found(folder), tmp_path / "runs", None, {}, tmp_path)
    assert "synthetic" in words
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)
    assert len({Path(path).read_bytes() for path in paths}) == INPUTS


def test_folder_that_was_named_needs_64_images(run: Run, tmp_path: Path) -> None:
    mine = found(run.artifacts / "onnx-fp32")
    folder = tmp_path / "few"
    folder.mkdir()
    for one in PICTURES[:63]:
        (folder / one.place).write_bytes(one.data)
    with pytest.raises(OctcError, match="63 images, 64") as caught:
        choose_pictures(str(folder), mine, run.path.parent, None, {}, tmp_path)
    assert caught.value.exit_code == 2
    (folder / "63.png").write_bytes(PICTURES[63].data)
    paths, words = choose_pictures(str(folder), mine, run.path.parent, None, {}, tmp_path)
    assert (len(paths), words) == (64, str(folder))
    with pytest.raises(OctcError) as caught:
        choose_pictures(str(tmp_path / "none"), mine, run.path.parent, None, {}, tmp_path)
    assert caught.value.code == "OCT-E230"


def test_spread_takes_even_steps() -> None:
    assert [p.name for p in spread([Path(str(i)) for i in range(128)])] == [str(i) for i in range(0, 128, 2)]
