"""Splits: no patient and no content on two sides, balanced classes, the same for a seed, fast enough for the full set."""

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
from octc.datasets.split import PARTS, Split, check_split, groups_of, make_split, read_split

CLASSES = ("A", "B", "C", "D")


def fake(
    count: int,
    patients: int | None,
    seed: int = 0,
    copies: float = 0.0,
    official: float = 0.0,
    classes: int = 4,
    own: bool = True,
) -> Samples:
    """Random samples; `own`: a patient has one class. `copies`: share of images that repeat an earlier content."""
    rng = random.Random(seed)
    items: list[Sample] = []
    for i in range(count):
        patient = None if patients is None else rng.randrange(patients)
        label = patient % classes if own and patient is not None else rng.randrange(classes)
        sha = items[rng.randrange(i)].sha256 if i and rng.random() < copies else f"{seed}-{i}"
        part = "test" if rng.random() < official else "train"
        items.append(Sample(f"{i:06d}.png", label, None if patient is None else str(patient), part if official else None, sha))
    return Samples(Path(), CLASSES[:classes], tuple(items))


def assert_clean(split: Split, samples: Samples) -> None:
    where: dict[tuple[str, str], set[str]] = {}
    for part in PARTS:
        for s in split.parts[part]:
            where.setdefault(("sum", s.sha256), set()).add(part)
            if s.patient is not None:
                where.setdefault(("patient", s.patient), set()).add(part)
    assert all(len(parts) == 1 for parts in where.values())
    paths = [s.path for part in PARTS for s in split.parts[part]]
    assert len(paths) == len(set(paths)) == len(samples.items) - split.dropped


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("copies", "official", "own"), [(0.0, 0.0, True), (0.1, 0.0, False), (0.05, 0.3, True)])
def test_d23_no_patient_and_no_content_on_two_sides(seed: int, copies: float, official: float, own: bool) -> None:
    samples = fake(600, 150 + 10 * seed, seed, copies, official, own=own)
    split = make_split(samples, "x", seed)
    assert_clean(split, samples)


@pytest.mark.parametrize("patients", [None, 250, 60])
@pytest.mark.parametrize("seed", range(5))
def test_shares_of_every_class_are_near_what_was_asked(patients: int | None, seed: int) -> None:
    samples = fake(2000, patients, seed)
    split = make_split(samples, "x", seed)
    assert_clean(split, samples)
    totals = Counter(s.label for s in samples.items)
    largest = max(Counter(groups_of(samples.items)).values())
    for k, name in enumerate(CLASSES):
        assert abs(split.counts()["test"][name] - 0.2 * totals[k]) <= 0.5 * largest + 1
        assert abs(split.counts()["val"][name] - 0.2 * 0.8 * totals[k]) <= 0.6 * largest + 1


def test_validation_does_not_collect_the_busiest_patients() -> None:
    """Patients with many images are not typical; taking groups by size would put them all into val."""
    items = [Sample(f"{p}-{i}", p % 2, str(p), None, f"{p}-{i}") for p in range(200) for i in range(1 + 9 * (p % 10 == 0))]
    split = make_split(Samples(Path(), ("A", "B"), tuple(items)), "x", 0)
    busy = [s.patient for s in split.parts["val"] if int(str(s.patient)) % 10 == 0]
    others = {s.patient for s in split.parts["val"]} - set(busy)
    assert 0 < len(set(busy)) < 12
    assert len(others) > 15


@pytest.mark.parametrize("patients", [3, 4, 6])
def test_few_patients_still_leave_every_class_in_every_part(patients: int) -> None:
    items = [
        Sample(f"{k}-{p}-{i}", k, f"{k}{p}", None, f"{k}-{p}-{i}") for k in range(4) for p in range(patients) for i in range(5)
    ]
    split = make_split(Samples(Path(), CLASSES, tuple(items)), "x", 1)
    assert all(count > 0 for row in split.counts().values() for count in row.values())


def test_same_seed_same_digest_other_seed_another() -> None:
    samples = fake(500, 120, 3)
    first, again, other = (make_split(samples, "x", seed).digest for seed in (1, 1, 2))
    assert first == again != other
    shuffled = list(samples.items)
    random.Random(0).shuffle(shuffled)
    assert groups_of(samples.items) != groups_of(shuffled)  # groups are positions: the scan sorts before
    renamed = replace(samples, items=tuple(replace(s, path=f"moved/{s.path}") for s in samples.items))
    assert make_split(renamed, "x", 1).digest == first  # the digest is of contents, not of names


def test_d21_content_of_the_official_test_is_dropped_from_train() -> None:
    samples = fake(400, None, 5, official=0.3)
    mixed = replace(samples, items=tuple(replace(s, sha256=f"pair {i // 2}") for i, s in enumerate(samples.items)))
    split = make_split(mixed, "x", 0)
    assert split.dropped > 0
    assert_clean(split, mixed)


def test_d21_d23_check_split_names_what_is_shared() -> None:
    split = make_split(fake(200, 80, 1), "x", 0)
    train, test = split.parts["train"], split.parts["test"]
    with pytest.raises(OctcError) as caught:
        check_split(replace(split, parts={**split.parts, "test": (*test, replace(train[0], sha256="new"))}))
    assert caught.value.code == "OCT-E212"
    assert str(train[0].patient) in caught.value.message
    with pytest.raises(OctcError) as caught:
        check_split(replace(split, parts={**split.parts, "test": (*test, replace(train[0], patient=None))}))
    assert caught.value.code == "OCT-E210"
    assert train[0].path in caught.value.message


def test_d20_class_that_only_the_test_part_has() -> None:
    samples = fake(100, None, 2, official=0.4)
    items = tuple(s for s in samples.items if not (s.part == "train" and s.label == 2))
    with pytest.raises(OctcError) as caught:
        make_split(replace(samples, items=items), "x", 0)
    assert caught.value.code == "OCT-E207"
    assert "C" in caught.value.message


def test_one_patient_for_everything_is_said() -> None:
    samples = fake(40, 1, 0, own=False)
    with pytest.raises(OctcError) as caught:
        make_split(samples, "x", 0)
    assert caught.value.code == "OCT-E207"


def test_written_split_is_read_back_and_checked(tmp_path: Path) -> None:
    samples = fake(200, 60, 4)
    items = (replace(samples.items[0], path="Überblick\n\udcff 1.png"), *samples.items[1:])
    split = make_split(replace(samples, items=items), "x", 7)
    path = tmp_path / "split.json"
    split.write(path)
    assert read_split(path) == split
    value = json.loads(path.read_bytes())
    value["parts"]["val"][0]["label"] = 3 - value["parts"]["val"][0]["label"]
    path.write_text(json.dumps(value))
    with pytest.raises(OctcError) as caught:
        read_split(path)
    assert caught.value.code == "OCT-E216"
    path.write_text("{")
    with pytest.raises(OctcError, match="cannot be read"):
        read_split(path)


@pytest.mark.parametrize("patients", [None, 4686])
def test_the_full_size_takes_seconds(patients: int | None) -> None:
    samples = fake(108_000, patients, 0)
    start = time.process_time()
    split = make_split(samples, "x", 0)
    assert len(split.digest) == 64
    assert time.process_time() - start < 20  # 2 s where this was written
