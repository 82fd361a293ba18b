"""Data sets of two modalities: released layouts made here in small, the paired phantom, splits that keep patients apart."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.datasets.audit import audit
from octc.datasets.base import Sample
from octc.datasets.layouts import mmc, multieye, topcon
from octc.datasets.layouts.paired import check_partners, only
from octc.datasets.registry import DATASETS, guess_layout, scan_dataset
from octc.datasets.split import make_split, read_split
from octc.datasets.synthetic.fundus import draw_fundus
from octc.datasets.synthetic.paired import CLASSES, draw_labels, draw_oct, write_paired
from octc.imaging.decode import read_image


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_topcon(root: Path, hyphen: bool = False) -> None:
    """Ten patients with two eyes; the last three are test; val repeats a train line, as the released lists do."""
    for modality, table in topcon.LISTS.items():
        folder = topcon.FOLDERS[modality][hyphen]
        for patient in range(10):
            for eye in ("L", "R"):
                name = f"p{patient}-{eye}-1"
                picture(root / "train" / "Images" / folder / f"{name}.png", crc32(f"{modality}{patient}{eye}".encode()))
                marks = [0] * 11
                marks[patient] = 1
                marks[10 if eye == "L" else patient] = 1
                part = "test" if patient in (0, 1, 2) else "train"
                (root / part).mkdir(exist_ok=True, parents=True)
                with (root / part / table).open("a") as stream:
                    stream.write(f"{name} {' '.join(map(str, marks))}\n")
    (root / "val").mkdir()
    line = (root / "train" / "oct.txt").read_text().splitlines()[0]
    (root / "val" / "oct.txt").write_text(f"{line}\n")


@pytest.mark.parametrize("hyphen", [False, True])
def test_f08_topcon_both_spellings_eyes_patients_and_labels(tmp_path: Path, hyphen: bool) -> None:
    write_topcon(tmp_path, hyphen)
    found = scan_dataset("topcon-mm", tmp_path)
    assert len(found.items) == 40
    assert found.classes == topcon.CLASSES
    one = next(s for s in found.items if s.path.endswith("p4-L-1.png") and s.modality == "fundus")
    assert (one.targets, one.eye, one.patient, one.part) == ((4, 10), "p4-L", "p4", "train")
    assert one.label == 4  # the rarer of both
    assert [n.code for n in found.notes] == ["OCT-W218"]  # the line that val repeats
    assert guess_layout(tmp_path) == "topcon-mm"


@pytest.mark.parametrize("stem", ["201903{0:02d}-L-1", "2019-03-{0:02d}", "scan{0:02d}"])
def test_topcon_names_without_a_patient_give_none(tmp_path: Path, stem: str) -> None:
    write_topcon(tmp_path)
    for modality, table in topcon.LISTS.items():
        lines = []
        for number in range(11):
            name = stem.format(number + 1)
            place = tmp_path / "train" / "Images" / topcon.FOLDERS[modality][0] / f"{name}.png"
            picture(place, crc32(f"{modality}{number}".encode()))
            lines.append(f"{name} {' '.join('1' if k == number else '0' for k in range(11))}\n")
        (tmp_path / "train" / table).write_text("".join(lines))
        for part in ("val", "test"):
            (tmp_path / part / table).unlink(missing_ok=True)
    found = scan_dataset("topcon-mm", tmp_path)
    assert {(s.patient, s.eye) for s in found.items} == {(None, None)}
    assert found.patient_ids.state == "unknown"


def test_topcon_lines_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write_topcon(tmp_path)
    with (tmp_path / "train" / "cfp.txt").open("a") as stream:
        stream.write("../../etc 1 0 0 0 0 0 0 0 0 0 0\nshort 1 0\n")
    with pytest.raises(OctcError) as caught:
        scan_dataset("topcon-mm", tmp_path)
    assert caught.value.code == "OCT-E209"
    assert "2 lines" in caught.value.message
    assert "short" in str(caught.value.place)


def test_one_image_under_two_labellings_is_refused(tmp_path: Path) -> None:
    write_topcon(tmp_path)
    with (tmp_path / "val" / "oct.txt").open("a") as stream:
        stream.write("p4-L-1 1 0 0 0 0 0 0 0 0 0 0\n")
    with pytest.raises(OctcError, match="cannot be used") as caught:
        scan_dataset("topcon-mm", tmp_path)
    assert caught.value.code == "OCT-E209"


@pytest.mark.parametrize(("name", "letter"), [("mmc-amd", "AP"), ("mmc-amd-a", "A")])
def test_f09_mmc_amd_both_released_splits(tmp_path: Path, name: str, letter: str) -> None:
    for modality, (short, folder) in mmc.FOLDERS.items():
        for number, sign in enumerate("hdpw" * 3):
            stem = f"{'f' if modality == 'fundus' else 'o'}-{sign}-{number}-trs_01"
            picture(tmp_path / "ImageData" / folder / f"{stem}.jpg", crc32(f"{modality}{number}".encode()))
            part = ("train", "val", "test")[number // 4]
            table = tmp_path / f"mmc-amd-split{letter}-{part}" / "ImageSets" / f"{short}.txt"
            table.parent.mkdir(parents=True, exist_ok=True)
            with table.open("a") as stream:
                stream.write(f"{stem}\n")
    found = scan_dataset(name, tmp_path)
    assert len(found.items) == 24
    one = next(s for s in found.items if "-p-2-" in s.path and s.modality == "oct")
    assert (found.classes[one.label], one.targets, one.eye, one.part) == ("PCV", None, "p-2", "train")
    assert found.patient_ids.state == "unknown"  # no SubjectSets: an eye is no patient
    assert {s.part for s in found.items} == {"train", "test"}  # val is drawn again


def test_f10_multieye_nine_classes(tmp_path: Path) -> None:
    for modality, (top, folder) in multieye.FOLDERS.items():
        for number in range(27):
            part = ("train", "dev", "test")[number // 9]
            picture(tmp_path / top / "train" / "ImageData" / folder / f"i{number}.png", crc32(f"{modality}{number}".encode()))
            table = tmp_path / top / part / multieye.LIST
            table.parent.mkdir(parents=True, exist_ok=True)
            with table.open("a") as stream:
                stream.write(f"i{number} {number % 9}\n")
    found = scan_dataset("multieye", tmp_path)
    assert len(found.items) == 54
    assert {(s.modality, s.label) for s in found.items} == {(m, k) for m in ("oct", "fundus") for k in range(9)}
    assert guess_layout(tmp_path) == "multieye"
    assert found.patient_ids.state == "unknown"
    assert {s.eye for s in found.items} == {None}
    assert make_split(found, "multieye", 0).leakage == "patients unknown: leakage cannot be excluded"
    with (tmp_path / "assemble" / "train" / multieye.LIST).open("a") as stream:
        stream.write("i99 9\n")
    with pytest.raises(OctcError, match="cannot be used"):
        scan_dataset("multieye", tmp_path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paired") / "set"
    write_paired(root, 8, 1, 4)
    return root


def test_the_paired_phantom_is_a_data_set_of_both_modalities(drawn: Path) -> None:
    found = scan_dataset("paired-phantom", drawn, CLASSES[:6])
    assert guess_layout(drawn) == "paired-phantom"
    by = {m: {s.eye: s.targets for s in found.items if s.modality == m} for m in ("oct", "fundus")}
    assert by["oct"] == by["fundus"]  # the same eyes with the same labels
    assert len(by["oct"]) == 16
    assert {read_image(drawn / s.path).image.mode for s in found.items if s.modality == "fundus"} == {"RGB"}
    assert {read_image(drawn / s.path).image.mode for s in found.items if s.modality == "oct"} == {"L"}


def test_data_check_counts_both_modalities(drawn: Path) -> None:
    report = audit("paired-phantom", drawn)
    assert set(report.counts) == {"train fundus", "train oct", "test fundus", "test oct"}
    assert report.modes == {"RGB": 16, "L": 16}
    assert sum(report.counts["train oct"].values()) >= 12  # an image may have several classes


def test_findings_change_the_pixels_and_seeds_repeat_them() -> None:
    for draw in (lambda f: draw_oct(f, 5, 0, 96), lambda f: draw_fundus(f, 5, 0, 96, 0)):
        plain = np.asarray(draw({}))
        np.testing.assert_array_equal(plain, np.asarray(draw({})))
        for name in CLASSES[1:]:
            assert (np.asarray(draw({name: 0.8})) != plain).any(), name
    labels = [draw_labels(np.random.default_rng(i)) for i in range(200)]
    assert 0.15 < np.mean([not one for one in labels]) < 0.35
    assert any(len(one) > 1 for one in labels)


def test_a_modality_of_a_split_keeps_its_patients_and_survives_the_disk(drawn: Path, tmp_path: Path) -> None:
    whole = make_split(scan_dataset("paired-phantom", drawn), "paired-phantom", 0)
    oct_, fundus = only(whole, "oct"), only(whole, "fundus")
    for part in ("train", "val", "test"):
        assert {s.patient for s in oct_.parts[part]} == {s.patient for s in fundus.parts[part]}
    check_partners(oct_, fundus)
    oct_.write(tmp_path / "split.json")
    assert read_split(tmp_path / "split.json") == oct_
    other = only(make_split(scan_dataset("paired-phantom", drawn), "paired-phantom", 4), "fundus")
    if {s.patient for s in other.parts["train"]} & {s.patient for p in ("val", "test") for s in oct_.parts[p]}:
        with pytest.raises(OctcError) as caught:
            check_partners(oct_, other)
        assert caught.value.code == "OCT-E212"


def test_a_sample_of_one_class_is_written_as_before() -> None:
    plain = Sample("a.png", 1, "p", None, "00")
    assert set(plain.to_json()) == {"path", "label", "patient", "part", "sha256"}
    several = Sample("a.png", 1, "p", None, "00", (1, 3), "p-L", "fundus")
    assert Sample.from_json(several.to_json()) == several
    assert [several.has(k) for k in range(4)] == [False, True, False, True]
    assert DATASETS["topcon-mm"].task == "multilabel"
