"""OCTMNIST: MedMNIST's own file format becomes images, one by one; anything else in that place is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from octc.core.errors import MissingExtra, OctcError
from octc.datasets.download import sources
from octc.datasets.layouts.octmnist import write_octmnist
from octc.datasets.registry import guess_layout, scan_dataset
from octc.datasets.released_splits import make_splits

Arrays = dict[str, npt.NDArray[np.generic]]


def arrays(side: int = 64, counts: tuple[int, int, int] = (24, 8, 12)) -> Arrays:
    """As MedMNIST writes them: images uint8 [N, side, side], labels uint8 [N, 1]."""
    rng = np.random.default_rng(0)
    made: Arrays = {}
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        made[f"{part}_images"] = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % 4)[:, None]
    return made


def saved(path: Path, made: Arrays, *, compressed: bool = False) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **made)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_every_image_keeps_its_pixels_part_and_class(tmp_path: Path, compressed: bool) -> None:
    made = arrays()
    seen: list[tuple[int, int]] = []
    (tmp_path / "data").mkdir()
    archive = saved(tmp_path / "octmnist_64.npz", made, compressed=compressed)
    assert write_octmnist(archive, tmp_path / "data", lambda done, total: seen.append((done, total))) == 44
    assert seen[-1] == (44, 44)
    samples = scan_dataset("octmnist", tmp_path / "data")
    assert samples.classes == ("CNV", "DME", "DRUSEN", "NORMAL")
    assert {part: sum(s.part == part for s in samples.items) for part in ("train", "test")} == {"train": 32, "test": 12}
    for part in ("train", "val", "test"):
        for number in range(5):
            path = tmp_path / "data" / part / samples.classes[number % 4] / f"{number:06d}.png"
            assert np.array_equal(np.asarray(Image.open(path)), made[f"{part}_images"][number])
    assert json.loads((tmp_path / "data/octmnist.json").read_text()) == {
        "file": "octmnist_64.npz", "images": 44, "size": [64, 64]
    }  # fmt: skip
    assert guess_layout(tmp_path / "data") == "octmnist"
    assert make_splits(samples, "octmnist")[0].counts()["test"] == dict.fromkeys(samples.classes, 3)


def changed(key: str, value: npt.NDArray[np.generic] | None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        made = arrays()
        if value is None:
            del made[key]
        else:
            made[key] = value
        saved(path, made)

    return make


def pickled(path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    saved(path, {key: value for key, value in arrays().items() if key != "train_labels"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_labels.npy", stream.getvalue())


def cut(path: Path) -> None:
    saved(path, arrays())
    path.write_bytes(path.read_bytes()[:50_000])


def short_array(path: Path) -> None:
    """A header that promises more images than follow."""
    saved(path, {key: value for key, value in arrays().items() if key != "test_images"})
    stream = io.BytesIO()
    np.save(stream, arrays()["test_images"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("test_images.npy", stream.getvalue()[:-100])


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "array missing": (changed("val_images", None), "val_images"),
    "label unknown": (changed("train_labels", np.full((24, 1), 7, np.uint8)), "labels that are not 0 to 3"),
    "labels too few": (changed("train_labels", np.zeros((9, 1), np.uint8)), "for 9 labels"),
    "labels of another shape": (changed("train_labels", np.zeros((24, 2), np.uint8)), "labels of shape"),
    "colour": (changed("test_images", np.zeros((12, 64, 64, 3), np.uint8)), "an array"),
    "floats": (changed("test_images", np.zeros((12, 64, 64))), "an array float64"),
    "other numbers": (changed("test_images", np.zeros((12, 64, 64), np.int16)), "images int16"),
    "28 pixels": (changed("train_images", np.zeros((24, 28, 28), np.uint8)), "octc takes 32 to 1024"),
    "pickle": (pickled, "an array object"),
    "cut off": (cut, "not a zip file"),
    "short": (short_array, "test images end early"),
    "text": (lambda path: path.write_text("hello") and None, "not a zip file"),
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_refused(tmp_path: Path, case: str) -> None:
    make, said = BAD[case]
    make(tmp_path / "octmnist_64.npz")
    (tmp_path / "data").mkdir()
    with pytest.raises(OctcError) as caught:
        write_octmnist(tmp_path / "octmnist_64.npz", tmp_path / "data")
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E217", 3)
    assert said in caught.value.message
    assert not (tmp_path / "data/octmnist.json").exists()


def test_medmnist_states_address_and_sum_of_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the installed package, without importing torch for it."""
    monkeypatch.setenv("HOME", str(tmp_path))  # medmnist makes a folder there
    for size in sources.SIZES:
        (file,) = sources.medmnist_files(None, size)
        assert file.url.startswith("https://")
        assert f"octmnist_{size}.npz" in file.url
        assert file.digest is not None
        assert len(file.digest) == len("md5:") + 32
    labels = sources.read_medmnist_info()["label"]
    assert [labels[str(k)].split()[-1] for k in range(4)] == ["neovascularization", "edema", "drusen", "normal"]


def test_without_medmnist_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra) as caught:
        sources.medmnist_files(None, 64)
    assert caught.value.hint == "pip install 'octc[octmnist]'"
