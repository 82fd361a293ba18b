"""What decoding tells: borders, moments, the release of UCSD, and the same scan under two patients of one part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.datasets.audit import audit
from octc.datasets.base import Sample
from octc.datasets.image_facts import UCSD_RELEASES, ImageFacts, read_facts, sizes_of, tell_release
from octc.datasets.statistics import pixel_moments
from octc.datasets.synthetic.bscans import write_phantoms

OCT = Path("CellData/OCT")


def fact(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> ImageFacts:
    Image.fromarray(pixels).save(path)
    (found,) = read_facts(path.parent, [Sample(path.name, 0, None, None, "x")])
    return found


def test_x5_a_white_border_is_told_by_the_outermost_pixels(tmp_path: Path) -> None:
    """kd-oct.md 2.2: more than 5 % of the edge pixels are 250 or brighter; what is white inside does not count."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[1:-1, 1:-1] = 255
    assert fact(tmp_path / "inside.png", pixels).edge == 0.0
    pixels[0] = 250
    assert fact(tmp_path / "top.png", pixels).edge == pytest.approx(60 / 196)
    pixels[0] = 249
    pixels[:, 0] = 255
    assert fact(tmp_path / "side.png", pixels).edge == pytest.approx(40 / 196)


def test_moments_are_those_of_every_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    facts = []
    for name, shape in (("grey", (40, 50)), ("colour", (60, 45, 3))):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        found = fact(tmp_path / f"{name}.png", pixels)
        values = pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1) / 255.0
        assert np.allclose(found.mean, values.mean(axis=0))
        assert np.allclose(found.square, (values**2).mean(axis=0))
        facts.append(found)
    mean, std = pixel_moments(facts)
    assert np.allclose(mean, np.mean([f.mean for f in facts], axis=0))
    assert np.allclose(std, np.sqrt(np.mean([f.square for f in facts], axis=0) - np.square(mean)))


def test_broken_images_have_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    facts = read_facts(tmp_path, [Sample("a.png", 0, None, None, "x")])
    assert facts[0].failure is not None
    assert sizes_of(facts) == {}


@pytest.mark.parametrize("release", UCSD_RELEASES)
def test_x4_the_release_is_told_by_patients_or_by_size(release: str) -> None:
    size, patients = UCSD_RELEASES[release]
    other = next(s for name, (s, _) in UCSD_RELEASES.items() if name != release)
    whole = [Sample(f"{i}", 0, str(i % patients), "test", str(i)) for i in range(1000)]
    facts = [ImageFacts((1, 1))] * 1000
    assert tell_release(whole, facts) == f"{release} (1,000 images of {patients} patients)"
    assert tell_release([*whole[:-1], Sample("x", 0, "new", "test", "x")], facts) == ""
    part = [ImageFacts(size)] * 60 + [ImageFacts(other)] * 40
    assert tell_release(whole[:100], part).startswith(f"{release} (a subset; most are {size[0]}x{size[1]}")
    assert tell_release(whole[:100], [ImageFacts((300, 300))] * 100) == ""
    assert tell_release([], []) == ""


def test_x4_one_scan_under_two_patients_of_a_part_is_a_warning(tmp_path: Path) -> None:
    """A fold could separate them; the same bytes would be linked, these were encoded again."""
    write_phantoms(tmp_path / "set", 4, 4, 0, size=(256, 248))
    folder = tmp_path / "set" / OCT / "train" / "CNV"
    first = sorted(folder.iterdir())[0]
    Image.open(first).save(folder / "CNV-900-1.jpeg", quality=60)
    report = audit("phantom", tmp_path / "set")
    (found,) = [f for f in report.warnings if f.code == "OCT-W213"]
    assert "of different patients in one part (a fold may separate them)" in found.message
    assert first.name in found.items[0]
    assert "CNV-900-1.jpeg" in found.items[0]
    assert not [f for f in report.findings if f.code == "OCT-E211"]
