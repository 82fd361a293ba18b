"""From folders to samples: every layout, every odd name, every tree that is not what it should be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.datasets.patients import patient_of
from octc.datasets.registry import DATASETS, find_root, guess_layout, scan_dataset
from octc.datasets.synthetic.bscans import write_phantoms

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "phantom"
    write_phantoms(root, 4, 2, 0, size=(64, 62))
    return root


@pytest.fixture
def tree(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "tree"))


def refused(name: str, root: Path) -> OctcError:
    with pytest.raises(OctcError) as caught:
        scan_dataset(name, root)
    assert caught.value.exit_code == 3
    return caught.value


def image(path: Path, grey: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 40), grey).save(path, "PNG")
    return path


def test_ucsd_layout_gives_classes_patients_parts_and_sums(tree: Path) -> None:
    seen: list[tuple[int, int]] = []
    samples = scan_dataset("ucsd", tree, progress=lambda done, total: seen.append((done, total)))
    assert samples.classes == CLASSES
    assert [s.path for s in samples.items] == sorted(s.path for s in samples.items)
    assert seen == [(i, 16) for i in range(1, 17)]
    for s in samples.items:
        _, _, part, name, file = s.path.split("/")
        assert (part, name) == (s.part, CLASSES[s.label])
        assert s.patient == file.split("-")[1]
        assert s.sha256 == sha256_file(tree / s.path)


@pytest.mark.parametrize("inner", ["CellData", "CellData/OCT"])
def test_root_may_be_given_deeper(tree: Path, inner: str) -> None:
    assert len(scan_dataset("ucsd", tree / inner).items) == 16


def test_moving_a_data_set_keeps_its_digest_and_a_changed_byte_does_not(tree: Path, tmp_path: Path) -> None:
    first = scan_dataset("ucsd", tree).digest
    moved = Path(shutil.copytree(tree, tmp_path / "moved"))
    assert scan_dataset("ucsd", moved).digest == first
    path = next(moved.rglob("*.jpeg"))
    path.write_bytes(path.read_bytes() + b"\0")
    assert scan_dataset("ucsd", moved).digest != first


@pytest.mark.parametrize(
    ("stem", "folder", "patient"),
    [
        ("CNV-1016042-1", "CNV", "1016042"),
        ("NORMAL-1384-9001", "NORMAL", "1384"),
        ("DME-12-3 (copy)", "DME", "12"),
        ("DME-12-3\nx", "DME", "12"),
        ("AMD-WET-12-3", "AMD-WET", "12"),
        ("drusen-077-2", "DRUSEN", "077"),
        ("12-3", "CNV", None),
        ("scan", "CNV", None),
        ("CNV-a12-3", "CNV", None),
    ],
)
def test_patient_is_the_number_alone(stem: str, folder: str, patient: str | None) -> None:
    assert patient_of(stem, folder) == patient


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "png", "PnG", "bmp", "tif", "TIFF"])
def test_suffixes_of_any_case(tree: Path, suffix: str) -> None:
    image(tree / f"CellData/OCT/train/CNV/CNV-7-7.{suffix}")
    assert len(scan_dataset("ucsd", tree).items) == 17


def test_hidden_files_and_other_files_are_no_images(tree: Path) -> None:
    folder = tree / "CellData/OCT/train/CNV"
    for name in ("._CNV-7-7.jpeg", ".tmp-CNV-7-7.jpeg", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"x")
    assert len(scan_dataset("ucsd", tree).items) == 16


def test_d14_odd_names_all_work(tmp_path: Path) -> None:
    long = "n" * (255 - len("CNV-5-1") - len(".png"))
    names = ["CNV-1-1 Auge links", "CNV-2-1 眼底 ü é", "CNV-3-1\nline", f"CNV-5-1{long}", "CNV-6-1a", "CNV-6-1A", "-", "💧"]
    for number, name in enumerate(names):
        path = image(tmp_path / "tree" / "CNV" / f"{name}.png", 40 + number)
        assert len(path.name.encode()) <= 255
    raw = os.fsencode(tmp_path / "tree" / "CNV") + b"/CNV-9-1-\xff\xfe.png"
    Path(os.fsdecode(raw)).write_bytes(path.read_bytes())
    image(tmp_path / "tree" / "NORMAL folder" / "NORMAL-7-1.png")
    samples = scan_dataset("folder", tmp_path / "tree")
    assert len(samples.items) == len(names) + 2
    assert len({s.path for s in samples.items}) == len(samples.items)
    assert {s.patient for s in samples.items} == {"1", "2", "3", "5", "6", "7", "9", None}
    assert len(samples.digest) == 64


def test_folder_without_parts(tmp_path: Path) -> None:
    for name in ("wet", "dry"):
        for number in range(3):
            image(tmp_path / name / "deep" / f"{number}.png")
    samples = scan_dataset("folder", tmp_path)
    assert samples.classes == ("dry", "wet")
    assert {(s.part, s.patient) for s in samples.items} == {(None, None)}


def test_folder_with_parts_reads_val_as_train(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for name in ("wet", "dry"):
            image(tmp_path / part / name / f"{name}-{len(part)}-1.png")
    samples = scan_dataset("folder", tmp_path)
    assert sorted(str(s.part) for s in samples.items) == ["test", "test", "train", "train", "train", "train"]


def test_d16_link_out_of_the_root_is_refused_and_named(tree: Path, tmp_path: Path) -> None:
    outside = image(tmp_path / "outside" / "CNV-8-1.png")
    link = tree / "CellData/OCT/train/CNV/CNV-8-1.png"
    link.symlink_to(outside)
    error = refused("ucsd", tree)
    assert error.code == "OCT-E205"
    assert error.place == str(link)


@pytest.mark.parametrize("where", ["CellData/OCT/train/CNV/more", "CellData/OCT/train/CNV"])
def test_d16_linked_folder_out_of_the_root_is_refused(tree: Path, tmp_path: Path, where: str) -> None:
    image(tmp_path / "outside" / "CNV-8-1.png")
    link = tree / where
    if link.exists():
        shutil.rmtree(link)
    link.symlink_to(tmp_path / "outside", target_is_directory=True)
    error = refused("ucsd", tree)
    assert error.code == "OCT-E205"
    assert error.place == str(link)


def test_d16_loops_do_not_hang(tree: Path) -> None:
    folder = tree / "CellData/OCT/train/CNV"
    (folder / "up").symlink_to(tree, target_is_directory=True)
    (folder / "here").symlink_to(folder, target_is_directory=True)
    assert len(scan_dataset("ucsd", tree).items) == 16
    (folder / "CNV-9-9.png").symlink_to(folder / "CNV-9-9.png")
    assert refused("ucsd", tree).code == "OCT-E205"


def test_d16_dangling_link_is_named(tree: Path) -> None:
    link = tree / "CellData/OCT/test/DME/DME-9-9.png"
    link.symlink_to(tree / "gone.png")
    assert refused("ucsd", tree).place == str(link)


def test_link_inside_the_root_is_an_image_like_any_other(tree: Path) -> None:
    folder = tree / "CellData/OCT/train/CNV"
    target = next(folder.iterdir())
    (folder / "CNV-9-9.jpeg").symlink_to(target)
    samples = scan_dataset("ucsd", tree)
    assert [s.sha256 for s in samples.items].count(sha256_file(target)) == 2


def test_root_itself_may_be_a_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree, target_is_directory=True)
    assert len(scan_dataset("ucsd", tmp_path / "link").items) == 16


@pytest.mark.parametrize("name", ["ucsd", "folder"])
def test_d18_empty_class_folder_is_named(tree: Path, name: str) -> None:
    root = tree / "CellData/OCT"
    shutil.rmtree(root / "train/DRUSEN")
    (root / "train/DRUSEN").mkdir()
    error = refused(name, root)
    assert error.code == "OCT-E206"
    assert "DRUSEN" in error.message


def test_d19_missing_and_extra_class_show_both_lists(tree: Path) -> None:
    root = tree / "CellData/OCT"
    (root / "train/GEOGRAPHIC").mkdir()
    error = refused("ucsd", tree)
    assert error.code == "OCT-E206"
    assert "expected CNV, DME, DRUSEN, NORMAL; found CNV, DME, DRUSEN, GEOGRAPHIC, NORMAL" in error.message
    (root / "train/GEOGRAPHIC").rmdir()
    shutil.rmtree(root / "test/DME")
    error = refused("ucsd", tree)
    assert "expected CNV, DME, DRUSEN, NORMAL; found CNV, DRUSEN, NORMAL" in error.message


@pytest.mark.parametrize("name", ["ucsd", "folder"])
def test_d20_class_of_test_that_train_lacks_is_named(tree: Path, name: str) -> None:
    root = tree / "CellData/OCT"
    shutil.rmtree(root / "train/DME")
    error = refused(name, root)
    assert error.code == "OCT-E207"
    assert "DME" in error.message


def test_one_class_is_no_data_set(tmp_path: Path) -> None:
    image(tmp_path / "only" / "1.png")
    assert refused("folder", tmp_path).code == "OCT-E206"


@pytest.mark.parametrize("name", ["ucsd", "folder"])
def test_no_such_layout(tmp_path: Path, name: str) -> None:
    assert refused(name, tmp_path / "absent").code == "OCT-E230"


def test_place_is_option_then_environment_then_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("option", "variable", "Dataset/UCSD", "Dataset/phantom"):
        (tmp_path / folder).mkdir(parents=True)
    environ = {"OCTC_DATA": "variable"}
    assert find_root("ucsd", "option", environ) == Path("option")
    assert find_root("ucsd", None, environ) == Path("variable")
    assert find_root("ucsd", None, {}) == Path("Dataset/UCSD")
    assert find_root("phantom", None, environ) == Path("Dataset/phantom")
    for name, data in (("ucsd", "nowhere"), ("folder", None)):
        with pytest.raises(OctcError) as caught:
            find_root(name, data, {})
        assert caught.value.code == "OCT-E230"
        assert caught.value.hint
    with pytest.raises(OctcError, match="unknown data set"):
        find_root("usdc", None, {})


def test_d01_skip_bad_leaves_out_what_cannot_be_read(tree: Path) -> None:
    folder = tree / "CellData/OCT/train/CNV"
    (folder / "CNV-7-1.jpeg").write_bytes(b"")
    (folder / "CNV-7-2.jpeg").write_text("<html>")
    samples = scan_dataset("ucsd", tree, skip_bad=True)
    assert len(samples.items) == 16
    assert [(path[-12:], why[:8]) for path, why in samples.skipped] == [
        ("CNV-7-1.jpeg", "OCT-E201"),
        ("CNV-7-2.jpeg", "OCT-E202"),
    ]
    for path in folder.iterdir():
        path.write_bytes(b"")
    for path in (tree / "CellData/OCT/test/CNV").iterdir():
        path.write_bytes(b"")
    with pytest.raises(OctcError, match="no readable image is left of CNV"):
        scan_dataset("ucsd", tree, skip_bad=True)


def test_layout_is_guessed_from_the_folders(tree: Path, tmp_path: Path) -> None:
    assert guess_layout(tree) == "phantom"
    (tree / "phantom.json").unlink()
    assert guess_layout(tree) == "ucsd"
    assert guess_layout(tmp_path) == "folder"


def test_table_is_complete() -> None:
    for name, spec in DATASETS.items():
        assert spec.name == name
        assert all((spec.title, spec.layout, spec.licence, spec.source))


def test_real_subset(ucsd: Path) -> None:
    samples = scan_dataset("ucsd", ucsd)
    train, test = ([s for s in samples.items if s.part == part] for part in ("train", "test"))
    assert len(train) == 862
    assert len(test) == 826
    assert not {s.patient for s in train} & {s.patient for s in test}
    assert None not in {s.patient for s in samples.items}
