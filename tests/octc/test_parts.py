"""Parts and classes of a tree, however they are spelt; what can be read in two ways is refused with the reading that fits."""

from __future__ import annotations

import shlex
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.audit import audit
from octc.datasets.base import words_of_scan
from octc.datasets.parts import part_of
from octc.datasets.registry import guess_layout, scan_dataset
from octc.datasets.split import make_split
from tests.class_tree import of_parts, write_tree
from tests.paired_set import write_pairs

SPELLINGS = {
    "train": ("train", "Train", "TRAIN", "training", "Training Set", "train_set", "trainset", "TrainData", "train-images",
              "images_train", "trn", "train2017", "1_train", "01-Training", "trainval", "OCT_train", "Trainingsdaten",
              "训练集"),
    "val": ("val", "Val", "valid", "VALID", "validation", "Validation_set", "valset", "ValData", "validate", "dev", "devset",
            "vld", "2_val", "val2017", "Validierung", "验证集"),
    "test": ("test", "Test", "TEST", "testing", "Testing_Set", "test_set", "testset", "TestData", "tst", "holdout", "hold-out",
             "held_out", "test-images", "3-test", "测试集"),
    "eval": ("eval", "Eval", "evaluation", "eval_set"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "part"), [(name, part) for part, names in SPELLINGS.items() for name in names])
def test_usual_spellings(name: str, part: str) -> None:
    assert part_of(name) == part


def test_words_of_parts_in_names_of_files_and_patients_leave_nothing_out(tmp_path: Path) -> None:
    """`datasets` loads only the files that have such a word, and their classes are lost."""
    words = ("pat-test/a.png", "p2/b-test-1.png", "p3/clinic_training_1.png", "p4/dev_1.png", "p5/c.png", "pat-eval/val.png")
    paths = [*(f"CNV/{name}" for name in words), "NORMAL/p6/a.png", "NORMAL/p7-train/test.png"]
    found = scan_dataset("folder", write_tree(tmp_path, paths))
    assert found.classes == ("CNV", "NORMAL")
    assert sorted(one.path for one in found.items) == sorted(paths)
    assert {one.part for one in found.items} == {None}


@pytest.mark.parametrize("name", [
    "CNV", "NORMAL", "invalid", "contest", "trainer", "latest", "test_positive", "DRUSEN", "data", "device", "strain", "values",
    "1", "OCT",
])  # fmt: skip
def test_no_parts(name: str) -> None:
    assert part_of(name) is None


def scanned(root: Path) -> tuple[tuple[str, ...], dict[str | None, int]]:
    samples = scan_dataset(guess_layout(root), root)
    return samples.classes, dict(Counter(sample.part for sample in samples.items))


LAYOUTS: dict[str, tuple[list[str], dict[str | None, int]]] = {
    "no parts": ([f"{name}/{name}-{p}-1.png" for name in ("CNV", "DME") for p in range(3)], {None: 6}),
    "train test": (of_parts(["train", "test"]), {"train": 4, "test": 4}),
    "train val": (of_parts(["train", "val"]), {"train": 8}),
    "Train Test": (of_parts(["Train", "Test"]), {"train": 4, "test": 4}),
    "training validation testing": (of_parts(["training", "validation", "testing"]), {"train": 8, "test": 4}),
    "train valid test": (of_parts(["train", "valid", "test"]), {"train": 8, "test": 4}),
    "TRAIN VAL TEST": (of_parts(["TRAIN", "VAL", "TEST"]), {"train": 8, "test": 4}),
    "Train_data dev test_set": (of_parts(["Train_data", "dev", "test_set"]), {"train": 8, "test": 4}),
    "trn tst": (of_parts(["trn", "tst"]), {"train": 4, "test": 4}),
    "train holdout": (of_parts(["train", "holdout"]), {"train": 4, "test": 4}),
    "train alone": (of_parts(["train"]), {"train": 4}),
    "eval beside test": (of_parts(["train", "eval", "test"]), {"train": 8, "test": 4}),
    "eval beside val": (of_parts(["train", "val", "eval"]), {"train": 8, "test": 4}),
    "one more word": (of_parts(["kermany_train", "kermany_test"]), {"train": 4, "test": 4}),
    "parts twice": (of_parts(["train/train", "test/test"]), {"train": 4, "test": 4}),
    "val of one class": ([*of_parts(["train", "test"]), "val/CNV/CNV-7-1.png"], {"train": 5, "test": 4}),
    "wrapped": ([*of_parts(["OCT2017/train", "OCT2017/test"]), "__MACOSX/OCT2017/._train", "a.txt"], {"train": 4, "test": 4}),
    "doubled": (of_parts(["set"]), {None: 4}),
    "documents beside": ([*of_parts(["train", "test"]), "docs/paper.pdf", "empty/"], {"train": 4, "test": 4}),
    "eyes": ([f"{name}/{eye}/{name}-{p}-1.png" for p, name in enumerate(("CNV", "DME")) for eye in ("OD", "OS")], {None: 4}),
    "patients": ([f"{name}/{p}/a.png" for name, ps in (("CNV", "123"), ("DME", "1234")) for p in ps], {None: 7}),
    "ucsd": (of_parts(["OCT/Train", "OCT/Test"], ("CNV", "DME", "DRUSEN", "NORMAL")), {"train": 8, "test": 8}),
    "ucsd with val": (
        of_parts(["CellData/OCT/train", "CellData/OCT/Valid", "CellData/OCT/TEST"], ("CNV", "DME", "DRUSEN", "NORMAL")),
        {"train": 16, "test": 8},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_classes_and_parts(name: str, tmp_path: Path) -> None:
    paths, parts = LAYOUTS[name]
    root = write_tree(tmp_path / "set", paths)
    classes, found = scanned(root)
    assert classes in {("CNV", "DME"), ("CNV", "DME", "DRUSEN", "NORMAL")}
    assert found == parts
    samples = scan_dataset(guess_layout(root), root)
    said = words_of_scan(samples.items, samples.parts, samples.unread)
    for folder, kind in samples.parts:
        count = sum(path.startswith(f"{folder}/") for path in paths)
        (line,) = (line for line in said if line.startswith(f"{folder}: {count} images"))
        assert kind == "all" or f"read as {'test' if kind == 'test' else 'train'}" in line
    assert any("no test part" in line for line in said) == ("train" in parts and "test" not in parts)


def test_where_there_is_no_test_part_test_images_are_drawn(tmp_path: Path) -> None:
    write_tree(tmp_path, of_parts(["train", "valid"], images=12))
    split = make_split(scan_dataset("folder", tmp_path), "folder", 0)
    assert split.classes == ("CNV", "DME")
    assert all(sum(counts.values()) for counts in split.counts().values())
    assert sum(map(len, split.parts.values())) == 48


REFUSED: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "eval alone": (of_parts(["train", "eval"]), ("eval", "validation", "test")),
    "eval beside both": (of_parts(["train", "val", "test", "eval"]), ("eval",)),
    "val and valid": (of_parts(["train", "val", "valid"]), ("val, valid",)),
    "Train and train": (of_parts(["train", "Train", "test"]), ("Train, train",)),
    "no train": (of_parts(["val", "test"]), ("no training part", "test, val")),
    "test alone": (of_parts(["Test"]), ("no training part", "Test")),
    "parts beside classes": ([*of_parts(["train", "test"]), "CNV/CNV-1-1.png", "DME/DME-1-1.png"], ("test, train", "CNV, DME")),
    "parts beside images": ([*of_parts(["train", "test"]), "unlabelled/1.png"], ("unlabelled",)),
    "class called valid": (of_parts([""], ("invalid", "valid")), ("valid", "invalid")),
    "parts below classes": (
        [f"{name}/{part}/{p}.png" for name in ("CNV", "DME") for part in ("Train", "test") for p in (1, 2)],
        ("CNV/Train", "DME/test", "PART/CLASS"),
    ),
    "part below one class": (["CNV/1.png", "CNV/old/val/2.png", "DME/1.png"], ("CNV/old/val",)),
    "parts inside a part": (of_parts(["train/train", "train/val", "test"]), ("train/train, train/val",)),
    "folds": (
        [f"fold{fold}/{part}/{name}/{fold}.png" for fold in (1, 2) for part in ("train", "test") for name in ("CNV", "DME")],
        ("fold1, fold2", "data set of its own"),
    ),
    "unknown parts": (of_parts(["site A", "site B"]), ("site A, site B", "CNV, DME")),
    "numbered classes": (of_parts(["first", "second"], "0123"), ("first, second", "0, 1, 2, 3")),
    "modalities in parts": (
        [f"{part}/{kind}/{name}/1.png" for part in ("train", "test") for kind in ("OCT", "SLO") for name in ("CNV", "DME")],
        ("OCT, SLO", "CNV, DME"),
    ),
    "masks": ([f"{name}/{kind}/1.png" for name in ("CNV", "DME") for kind in ("images", "masks")], ("images, masks",)),
    "joined names": (of_parts([""], ("train_CNV", "train_DME", "test_CNV", "test_DME")), ("train_CNV", "test_DME")),
    "one folder": ([f"OCT/{name}/{p}.png" for name in ("CNV", "DME") for p in (1, 2)], ("one folder alone", "OCT", "CNV, DME")),
    "test without classes": ([*of_parts(["train"]), "test/1.png", "test/2.png"], ("test", "2 images in no class folder")),
    "test is empty": ([*of_parts(["train"]), "test/"], ("test", "none")),
    "class of other files": (["CNV/1.png", "DME/1.gif", "DME/2.gif"], ("DME", "2 .gif")),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_can_be_read_in_two_ways_is_refused(name: str, tmp_path: Path) -> None:
    paths, said = REFUSED[name]
    root = write_tree(tmp_path / "set", paths)
    with pytest.raises(OctcError) as caught:
        scan_dataset(guess_layout(root), root)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E206", 3)
    for words in said:
        assert words in caught.value.message
    words = shlex.split(caught.value.hint)
    for option, place in pairwise(words):
        assert option != "--data" or Path(place.strip(";")).is_dir()


def test_the_reading_that_fits_can_be_pasted(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", REFUSED["folds"][0])
    with pytest.raises(OctcError) as caught:
        scan_dataset("folder", root)
    chosen = Path(caught.value.hint.removeprefix("--data "))
    assert scanned(chosen) == (("CNV", "DME"), {"train": 2, "test": 2})


def test_links_in_the_place_of_classes_are_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", of_parts(["train", "test"]))
    (root / "train/DRUSEN").symlink_to(root / "train/CNV", target_is_directory=True)
    with pytest.raises(OctcError, match=r"train/DRUSEN is a link") as caught:
        scan_dataset("folder", root)
    assert caught.value.code == "OCT-E206"
    (root / "train/DRUSEN").unlink()
    (root / "train/DRUSEN").symlink_to(root / "gone")
    with pytest.raises(OctcError, match="leads nowhere"):
        scan_dataset("folder", root)


def test_debris_is_no_class_and_no_image_and_all_of_it_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, [
        *of_parts([""], images=3), "__MACOSX/CNV/._CNV-1-1.png", "@eaDir/x/SYNOPHOTO_THUMB_M.jpg", "CNV/@eaDir/CNV-1-1.png",
        "$RECYCLE.BIN/CNV-5-1.png", "System Volume Information/tracking.log", "CNV/.ipynb_checkpoints/CNV-1000-1.png",
        "CNV/._CNV-1-1.png", "CNV/Thumbs.db", "desktop.ini", ".DS_Store", "DME/thumbnails/DME-7-1.png",
        ".Trash-1000/files/a.png", "#recycle/a.png", "lost+found/", "DME/DME-8-1_thumb.png", "notes.txt",
    ])  # fmt: skip
    report = audit("folder", tmp_path)
    assert report.counts == {"all": {"CNV": 3, "DME": 3}}
    assert (report.read, report.findings) == (6, ())
    assert report.left_out_counts == {"debris": 9, "hidden": 4, "thumbnail": 2, ".txt": 1}
    assert len(report.left_out) == 16
    assert "OCT-W220" not in {found.code for found in report.warnings}
    assert report.others == ("notes.txt",)


def test_images_that_are_not_read_are_counted_named_and_warned_of(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        [*of_parts(["Train", "Test"]), "Train/CNV/a.gif", "Train/CNV/b.dcm", "Train/x.png", "loose.png", "Test/CNV/7"],
    )
    samples = scan_dataset("folder", tmp_path)
    assert len(samples.items) == 8
    (found,) = samples.notes
    assert found.code == "OCT-W220"
    assert sorted(found.items) == ["Test/CNV/7", "Train/CNV/a.gif", "Train/CNV/b.dcm", "Train/x.png", "loose.png"]
    report = audit("folder", tmp_path)
    assert report.left_out_counts == {"in no class folder": 2, ".dcm": 1, ".gif": 1, "no ending": 1}
    assert report.parts == {"Train": "train", "Test": "test"}
    assert any("2 in no class folder" in line and "1 .gif" in line for line in report.lines)


def test_validation_images_do_not_count_as_published_ones(tmp_path: Path) -> None:
    classes = ("CNV", "DME", "DRUSEN", "NORMAL")
    write_tree(tmp_path, of_parts(["OCT/train", "OCT/val", "OCT/test"], classes))
    report = audit("ucsd", tmp_path)
    assert report.counts["train"] == dict.fromkeys(classes, 4)
    (found,) = (f for f in report.warnings if f.code == "OCT-W215")
    assert "train/CNV: expected 37206, found 2" in found.items


def test_parts_of_a_table_in_any_spelling(tmp_path: Path) -> None:
    cells = ("Train", "TRAINING", "valid", "Dev", "Testing", "test")
    write_tree(tmp_path, [*(f"scans/{n}.png" for n in range(12)), "scans/more.png"])
    lines = [f"scans/{n}.png,{('dry', 'wet')[n % 2]},P{n},{cells[n // 2]}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,patient,part", *lines, ""]))
    samples = scan_dataset("csv", tmp_path)
    assert Counter(sample.part for sample in samples.items) == {"train": 4, "val": 4, "test": 4}
    (found,) = samples.notes
    assert (found.code, found.items) == ("OCT-W214", ("scans/more.png",))
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,patient,part", *lines, "scans/more.png,dry,P1,eval", ""]))
    with pytest.raises(OctcError, match="1 lines") as caught:
        scan_dataset("csv", tmp_path)
    assert caught.value.code == "OCT-E209"


def test_parts_of_lists_in_any_spelling(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "set", patients=12)
    before = scan_dataset("paired-phantom", root)
    (root / "test").rename(root / "Testing")
    (root / "train").rename(root / "TRAIN")
    (root / "TRAIN/Images/extra.png").write_bytes(b"x")
    assert guess_layout(root) == "topcon-mm"
    after = scan_dataset("paired-phantom", root)
    assert Counter(s.part for s in after.items) == Counter(s.part for s in before.items)
    assert sorted(s.path.removeprefix("TRAIN/") for s in after.items) == sorted(
        s.path.removeprefix("train/") for s in before.items
    )
    assert [f.items for f in after.notes if f.code == "OCT-W214"] == [("TRAIN/Images/extra.png",)]
