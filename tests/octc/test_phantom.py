"""Phantoms look like scans, follow their seeds, differ by class, and are written whole or not at all."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.datasets.layouts.folders import PHANTOM_MARK
from octc.datasets.registry import scan_dataset
from octc.datasets.synthetic.bscans import CLASSES, SIZE, draw_phantom, write_phantoms
from octc.datasets.synthetic.retina import draw_eye, draw_findings
from octc.imaging.preprocess import quality_notes


@pytest.mark.parametrize("kind", CLASSES)
def test_picture_has_the_brightness_of_a_scan(kind: str) -> None:
    """Vitreous dark, retina bright in a band, light fading below: judged by the mean of each row."""
    for seed in range(6):
        picture = draw_phantom(kind, seed, 0)
        assert (picture.mode, picture.size) == ("L", SIZE)
        pixels = np.asarray(picture).astype(float)
        assert quality_notes(np.asarray(picture)[None, None]) is None
        pixels[pixels > 252] = 0  # a white wedge is no tissue
        rows = pixels.mean(axis=1)
        bright = np.flatnonzero(rows > 0.5 * rows.max())
        assert 0.15 < bright.mean() / SIZE[1] < 0.85
        assert rows[:20].mean() < 0.4 * rows.max()
        assert rows[-20:].mean() < 0.4 * rows.max()


def test_seeds_decide_everything() -> None:
    first = np.asarray(draw_phantom("CNV", 3, 4))
    np.testing.assert_array_equal(first, np.asarray(draw_phantom("CNV", 3, 4)))
    assert (first != np.asarray(draw_phantom("CNV", 3, 5))).any()
    assert (first != np.asarray(draw_phantom("CNV", 4, 4))).any()


def test_findings_are_those_of_the_class() -> None:
    x = np.linspace(-3000, 3000, 256)
    seen = {
        kind: [draw_findings(kind, draw_eye(np.random.default_rng([s, 1])), x, np.random.default_rng(s)) for s in range(60)]
        for kind in CLASSES
    }
    assert all(not f.cysts and not f.fluid.any() and not f.material.any() and f.deposit.max() < 20 for f in seen["NORMAL"])
    assert all(f.deposit.max() > 10 and not f.cysts and not f.fluid.any() for f in seen["DRUSEN"])
    assert all(f.material.any() and f.broken.max() > 0.4 for f in seen["CNV"])
    assert all(f.cysts and f.swelling.max() > 5 and not f.material.any() for f in seen["DME"])


def test_difficulty_is_continuous() -> None:
    """Small drusen overlap with healthy variation, and healthy eyes have small deposits now and then."""
    x = np.linspace(-3000, 3000, 512)

    def heights(kind: str) -> list[float]:
        rngs = [(np.random.default_rng([s, 1]), np.random.default_rng([s, 2])) for s in range(200)]
        return [float(draw_findings(kind, draw_eye(one), x, two).deposit.max()) for one, two in rngs]

    healthy, drusen = heights("NORMAL"), heights("DRUSEN")
    assert 0.2 < np.mean(np.array(healthy) > 0) < 0.5
    assert min(drusen) < 1.6 * max(healthy)
    assert np.percentile(drusen, 90) > 4 * max(healthy)


@pytest.mark.parametrize("size", [(64, 62), (256, 248), (768, 496), (1536, 496)])
def test_any_size(size: tuple[int, int]) -> None:
    for kind in CLASSES:
        assert draw_phantom(kind, 1, 1, size).size == size


def test_a_picture_takes_milliseconds() -> None:
    start = time.process_time()
    for seed in range(20):
        draw_phantom(CLASSES[seed % 4], seed, 0)
    assert (time.process_time() - start) / 20 < 0.15  # 0.02 s where this was written


def test_written_set_has_its_layout_counts_and_patients(tmp_path: Path) -> None:
    root = tmp_path / "set"
    steps: list[tuple[int, int]] = []
    assert write_phantoms(root, 9, 4, 5, size=(64, 62), progress=lambda done, total: steps.append((done, total))) == 36
    assert steps[-1] == (36, 36)
    samples = scan_dataset("phantom", root)
    train, test = ({s.patient for s in samples.items if s.part == part} for part in ("train", "test"))
    assert len(train) == 12
    assert len(test) == 4
    assert not train & test
    assert len({s.sha256 for s in samples.items}) == 36


def test_same_seed_same_bytes_other_seed_no_byte_in_common(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantoms(tmp_path / name, 2, 2, seed, size=(64, 62))
    a, b, c = (scan_dataset("phantom", tmp_path / name) for name in "abc")
    assert a.digest == b.digest
    assert not {s.sha256 for s in a.items} & {s.sha256 for s in c.items}


def test_severity_makes_subtle_diseases_clear_and_leaves_healthy_eyes_alone(tmp_path: Path) -> None:
    for name, severity in (("plain", 0.0), ("clear", 0.6)):
        write_phantoms(tmp_path / name, 4, 4, 3, size=(64, 62), severity=severity)
    plain, clear = (
        {item.path: item.sha256 for item in scan_dataset("phantom", tmp_path / name).items} for name in ("plain", "clear")
    )
    assert set(plain) == set(clear)
    changed = {path for path in plain if plain[path] != clear[path]}
    assert not any("NORMAL" in path for path in changed)
    assert len(changed) >= 9  # of 12: a severe one stays as it is
    assert json.loads((tmp_path / "clear" / PHANTOM_MARK).read_text())["severity"] == 0.6
    assert "severity" not in json.loads((tmp_path / "plain" / PHANTOM_MARK).read_text())
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(OctcError) as caught:
            write_phantoms(tmp_path / "wrong", 4, 4, 3, severity=wrong)
        assert caught.value.code == "OCT-E104"
    assert not (tmp_path / "wrong").exists()


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_phantoms(root, 2, 2, 0, size=(64, 62))
    before = scan_dataset("phantom", root).digest
    with pytest.raises(OctcError) as caught:
        write_phantoms(root, 2, 2, 1, size=(64, 62))
    assert caught.value.code == "OCT-E106"

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(root, 2, 2, 1, size=(64, 62), force=True, progress=stop)
    assert scan_dataset("phantom", root).digest == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    write_phantoms(root, 2, 2, 1, size=(64, 62), force=True)
    assert scan_dataset("phantom", root).digest != before


def test_force_never_replaces_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(OctcError) as caught:
        write_phantoms(tmp_path, 2, 2, 0, size=(64, 62), force=True)
    assert caught.value.code == "OCT-E106"
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize(("images", "patients"), [(4, 1), (2, 3)])
def test_counts_that_cannot_be(tmp_path: Path, images: int, patients: int) -> None:
    with pytest.raises(OctcError) as caught:
        write_phantoms(tmp_path / "set", images, patients, 0)
    assert caught.value.code == "OCT-E104"
