"""Folds hold every image out once and share nobody; the released splits reproduce their check values and say that they leak."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.base import Sample, Samples
from octc.datasets.folds import make_folds
from octc.datasets.released_splits import make_splits, released_folds
from octc.datasets.split import PARTS, Split, check_split, groups_of, leaks_of, read_split

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
# kd-oct.md 1.5: test and validation ids of ids 1 to 30 whose label is (id - 1) mod 3
CHECK = {
    1: ("8 9 12 19 23 25", "4 6 14 18 28"), 2: ("1 13 20 24 29 30", "6 7 11 12 28"), 3: ("5 11 16 18 21 28", "4 6 12 17 25"),
    4: ("6 7 14 15 22 26", "4 9 11 18 28"), 5: ("2 3 4 10 17 27", "7 9 14 15 28"),
}  # fmt: skip
UCSD_TRAIN = (37206, 11349, 8617, 51140)


def busy(patients: int = 160, official: int = 0, seed: int = 1) -> Samples:
    """Patients with one to twelve images of one class or two; the last `official` patients are the official test."""
    rng = random.Random(seed)
    items = []
    for p in range(patients):
        for i in range(rng.choice((1, 1, 2, 2, 3, 4, 6, 9, 12))):
            label = (p + (i % 3 == 2 and p % 5 == 0)) % 4
            part = None if not official else "test" if p >= patients - official else "train"
            items.append(Sample(f"{p:04d}-{i:02d}.png", label, str(p), part, f"sum {p} {i}"))
    return Samples(Path(), CLASSES, tuple(items))


def shared(split: Split) -> bool:
    return bool(leaks_of(split))


@pytest.mark.parametrize("k", [2, 5, 10])
@pytest.mark.parametrize("official", [0, 20])
def test_every_image_is_held_out_once_and_nobody_is_on_two_sides(k: int, official: int) -> None:
    samples = busy(official=official)
    folds = make_folds(samples, "x", k, 0)
    assert [fold.fold for fold in folds] == [(i, k) for i in range(1, k + 1)]
    held = [s.path for fold in folds for s in fold.parts["test"]]
    assert sorted(held) == [s.path for s in samples.items if s.part != "test"]
    for fold in folds:
        assert not shared(fold)
        assert len(set().union(*({s.path for s in fold.parts[part]} for part in PARTS))) == len(held)
        assert ("official" in fold.parts) == bool(official)
    if official:
        tests = [s for s in samples.items if s.part == "test"]
        assert all(fold.parts["official"] == tuple(tests) for fold in folds)
    assert len({fold.digest for fold in folds}) == k


@pytest.mark.parametrize("seed", range(6))
def test_every_fold_has_its_share_of_every_class_and_of_busy_patients(seed: int) -> None:
    samples = busy(seed=seed)
    totals = Counter(s.label for s in samples.items)
    most = sum(size >= 9 for size in Counter(s.patient for s in samples.items).values())
    for fold in make_folds(samples, "x", 5, seed):
        counts = fold.counts()
        for label, name in enumerate(CLASSES):
            assert abs(counts["test"][name] - totals[label] / 5) <= 3
            assert abs(counts["val"][name] - 0.16 * totals[label]) <= 10
        sizes = Counter(s.patient for s in fold.parts["test"])
        assert most // 5 - 2 <= sum(size >= 9 for size in sizes.values()) <= most // 5 + 3


def test_the_seed_decides_and_the_inner_part_differs_between_folds() -> None:
    samples = busy()
    one, again, other = (make_folds(samples, "x", 5, seed) for seed in (0, 0, 1))
    assert [f.digest for f in one] == [f.digest for f in again]
    assert not {f.digest for f in one} & {f.digest for f in other}
    assert len({tuple(s.path for s in f.parts["val"]) for f in one}) == 5


def test_b5_patients_and_copies_of_the_official_test_are_dropped_also_through_others() -> None:
    samples = busy(official=20)
    twin = replace(samples.items[0], path="twin.png", sha256="sum 150 0")  # patient 0 has an image of patient 150
    folds = make_folds(replace(samples, items=(*samples.items, twin)), "x", 5, 0)
    own = [s for s in (*samples.items, twin) if s.patient == "0"]
    assert folds[0].dropped == len(own)
    assert all(s.patient != "0" for fold in folds for part in PARTS for s in fold.parts[part])


def test_too_few_patients_of_a_class_say_how_many_folds_there_can_be() -> None:
    samples = busy(patients=12)
    with pytest.raises(OctcError, match="5 folds need 5 patients of each class") as caught:
        make_folds(samples, "x", 5, 0)
    assert caught.value.code == "OCT-E207"
    assert caught.value.hint == "--folds 3"
    assert len(make_folds(samples, "x", 3, 0)) == 3
    with pytest.raises(OctcError, match="1 folds"):
        make_folds(samples, "x", 1, 0)


def test_a_class_that_parts_may_lack_has_two_patients_for_folds() -> None:
    """With one, the fold that holds it out would have none of the class to train on."""
    rare = [sample for sample in busy(patients=12).items if sample.label != 2]
    samples, name = busy(patients=12), CLASSES[2]
    samples = replace(samples, may_lack=(name,))
    own = [Sample(f"rare-{p}-{i}.png", 2, f"rare {p}", None, f"rare {p} {i}") for p in range(2) for i in range(3)]
    folds = make_folds(replace(samples, items=(*rare, *own)), "x", 3, 0)
    assert [fold.counts()["test"][name] for fold in folds].count(3) == 2
    assert all(fold.counts()["train"][name] for fold in folds)
    with pytest.raises(OctcError) as caught:
        make_folds(replace(samples, items=(*rare, *own[:3])), "x", 3, 0)
    assert (caught.value.code, f"{name} (1)" in caught.value.message, "--allow-empty" in caught.value.hint) == (
        "OCT-E207", True, False
    )  # fmt: skip


def test_a_fold_is_written_and_read_with_all_it_says(tmp_path: Path) -> None:
    for split in (make_folds(busy(official=20), "x", 5, 3)[2], make_splits(busy(official=20), "x", "as-released", 5)[0]):
        path = tmp_path / f"{split.protocol}.json"
        split.write(path)
        assert read_split(path) == split
    value = json.loads(path.read_text())
    value["protocol"] = "clean"  # a leaky split does not become a clean one
    path.write_text(json.dumps(value))
    with pytest.raises(OctcError) as caught:
        read_split(path)
    assert caught.value.code == "OCT-E216"


def test_split_files_of_before_are_read_as_clean(tmp_path: Path) -> None:
    split = make_splits(busy(), "x")[0]
    split.write(tmp_path / "split.json")
    value = json.loads((tmp_path / "split.json").read_text())
    del value["protocol"], value["fold"]
    (tmp_path / "split.json").write_text(json.dumps(value))
    assert read_split(tmp_path / "split.json") == split
    assert split.note == ""


@pytest.mark.parametrize("fold", CHECK)
def test_released_folds_have_the_check_values(fold: int) -> None:
    _, val, test = released_folds([(i - 1) % 3 for i in range(1, 31)], 5, 43)[fold - 1]
    assert [i + 1 for i in test] == [int(text) for text in CHECK[fold][0].split()]
    assert [i + 1 for i in val] == [int(text) for text in CHECK[fold][1].split()]


def full_ucsd() -> Samples:
    items = [
        Sample(f"train/{name}/{i:06d}.jpeg", label, str(i // 20), "train", f"{name}{i}")
        for label, (name, count) in enumerate(zip(CLASSES, UCSD_TRAIN, strict=True))
        for i in range(count)
    ]
    items += [
        Sample(f"test/{name}/{i}.jpeg", k, f"t{k}-{i}", "test", f"t{k}-{i}")
        for k, name in enumerate(CLASSES)
        for i in range(250)
    ]
    return Samples(Path(), CLASSES, tuple(items))


def test_released_splits_of_ucsd_have_the_published_sizes_and_leak() -> None:
    """F14, F15, B14: the student's five folds and the teacher's one split on 108,312 images."""
    samples = full_ucsd()
    start = time.process_time()
    folds = make_splits(samples, "ucsd", "as-released")
    (teacher,) = make_splits(samples, "ucsd", "as-released-teacher")
    assert time.process_time() - start < 20
    assert {(len(f.parts["train"]), len(f.parts["val"]), f.dropped) for f in folds} == {
        (69319, 17330, 21663), (69320, 17330, 21662)
    }  # fmt: skip
    assert list(teacher.counts()["val"].values()) == [7441, 2269, 1723, 10228]
    assert list(teacher.counts()["train"].values()) == [29765, 9080, 6894, 40912]
    for split in (*folds[::4], teacher):
        assert split.parts["test"] == folds[0].parts["test"]
        assert len(split.parts["test"]) == 1000
        assert len(leaks_of(split)[0]["patients"]) > 1000
        assert split.note.startswith("LEAKY split (as-released")
        with pytest.raises(OctcError, match="patients in both train and val"):
            check_split(replace(split, protocol="clean"))


def test_the_clean_folds_of_the_full_size_take_seconds() -> None:
    samples = full_ucsd()
    start = time.process_time()
    folds = make_folds(samples, "ucsd", 5, 0)
    assert time.process_time() - start < 30  # 3 s where this was written
    assert max(len(f.parts["test"]) for f in folds) - min(len(f.parts["test"]) for f in folds) < 200


def test_protocols_that_a_data_set_does_not_have_are_refused() -> None:
    with pytest.raises(OctcError, match="unknown protocol") as caught:
        make_splits(busy(), "x", "leaky")
    assert caught.value.code == "OCT-E104"
    with pytest.raises(OctcError, match="no as-released split of x") as caught:
        make_splits(busy(), "x", "as-released")
    assert caught.value.code == "OCT-E102"
    with pytest.raises(OctcError, match="one split without folds"):
        make_splits(busy(official=20), "x", "as-released-teacher", 5)
    with pytest.raises(OctcError, match="folds cannot be made") as caught:
        make_splits(busy(patients=24, official=20), "x", "as-released", 50)
    assert caught.value.code == "OCT-E207"


def test_files_that_cannot_be_read_are_not_one_group() -> None:
    items = [Sample(f"{i}.png", 0, None, None, "") for i in range(3)]
    assert len(set(groups_of(items))) == 3
