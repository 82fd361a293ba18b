"""Leave-one-acquisition-out: a fold holds out all images of one size or site, and trains on nobody who is in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.datasets.acquisitions import acquisitions_of
from octc.datasets.base import Sample, Samples
from octc.datasets.folds import LEAST, leave_out, never_left_out
from octc.datasets.layouts.csv import scan_csv
from octc.datasets.released_splits import make_splits
from octc.datasets.split import PARTS, leaks_of, read_split

CLASSES = ("DRUSEN", "NORMAL")


def sites(*counts: tuple[str, int], both: int = 0) -> Samples:
    """Per site so many patients of each class, two images each; the first `both` patients also have one at the second site."""
    items, second = [], counts[1][0]
    for site, patients in counts:
        for p in range(2 * patients):
            who = f"{site}-{p:03d}"
            items += [Sample(f"{who}-{i}.png", p % 2, who, None, f"sum {who} {i}", site=site) for i in (0, 1)]
            if site == counts[0][0] and p < both:
                items.append(Sample(f"{who}-x.png", p % 2, who, None, f"sum {who} x", site=second))
    return Samples(Path(), CLASSES, tuple(sorted(items, key=lambda one: one.path)))


def test_each_fold_holds_out_one_site_and_shares_no_patient() -> None:
    samples = sites(("A", 20), ("B", 12), ("C", 8), both=3)
    folds = leave_out(samples, "x", "site", 0)
    assert [fold.left_out for fold in folds] == ["site A", "site B", "site C"]
    assert [fold.fold for fold in folds] == [(1, 3), (2, 3), (3, 3)]
    held = Counter(s.path for fold in folds for s in fold.parts["test"])
    assert held == Counter(s.path for s in samples.items)
    for fold, site in zip(folds, "ABC", strict=True):
        assert leaks_of(fold) == []
        assert {s.site for s in fold.parts["test"]} == {site}
        assert site not in {s.site for part in ("train", "val") for s in fold.parts[part]}
    assert folds[0].dropped == 3  # the images at B of people who are at A
    assert folds[1].dropped == 6  # their images at A
    assert folds[2].dropped == 0


def test_the_seed_decides_what_chooses_the_epoch_and_the_digest_tells() -> None:
    samples = sites(("A", 20), ("B", 12))
    one, again, other = (leave_out(samples, "x", "site", seed) for seed in (0, 0, 1))
    assert [fold.digest for fold in one] == [fold.digest for fold in again] != [fold.digest for fold in other]
    assert [fold.parts["test"] for fold in one] == [fold.parts["test"] for fold in other]


@pytest.mark.parametrize(
    ("small", "names"), [((3, 2), ["site A", "site B", "site others (C, D)"]), ((3, 1), ["site A", "site B"])]
)
def test_small_sites_are_left_out_together_or_never(small: tuple[int, int], names: list[str]) -> None:
    samples = sites(("A", 20), ("B", LEAST), ("C", small[0]), ("D", small[1]))
    folds = leave_out(samples, "x", "site", 0)
    assert [fold.left_out for fold in folds] == names
    for fold in folds:
        of_small = [part for part in PARTS for s in fold.parts[part] if s.site in ("C", "D")]
        assert set(of_small) <= ({"test"} if fold.left_out == "site others (C, D)" else {"train", "val"})
        assert len(of_small) == 4 * sum(small)
    assert never_left_out(folds) == (0 if len(folds) == 3 else 4 * sum(small))


def test_a_site_that_is_called_others_is_left_out_by_itself() -> None:
    folds = leave_out(sites(("others", 9), ("B", 6), ("C", 3), ("D", 3)), "x", "site", 0)
    held = {fold.left_out: {s.site for s in fold.parts["test"]} for fold in folds}
    assert held == {"site others": {"others"}, "site B": {"B"}, "site others (C, D)": {"C", "D"}}


@pytest.mark.parametrize(("one", "other"), [("Spectralis", "spectralis"), ("1", "1.0"), ("Site 2", "Site2")])
def test_one_site_in_two_spellings_is_refused(one: str, other: str) -> None:
    """Each would be a fold, and the other one would be trained on in it."""
    with pytest.raises(OctcError) as caught:
        leave_out(sites((one, 6), (other, 6), ("B", 6)), "x", "site", 0)
    assert caught.value.code == "OCT-E209"
    assert one in str(caught.value.place)
    assert other in str(caught.value.place)


def test_a_site_whose_patients_are_everywhere_is_named() -> None:
    items = tuple(
        Sample(f"{p}-{site}.png", p % 2, str(p), None, f"{p} {site}", site=site) for p in range(16) for site in ("A", "B")
    )
    with pytest.raises(OctcError, match="site A is left out, with 16 other images") as caught:
        leave_out(Samples(Path(), CLASSES, items), "x", "site", 0)
    assert caught.value.code == "OCT-E207"


def test_one_acquisition_is_refused_with_its_count() -> None:
    with pytest.raises(OctcError) as caught:
        leave_out(sites(("A", 20), ("B", 4)), "x", "site", 0)
    assert caught.value.code == "OCT-E207"
    assert "A (20)" in caught.value.message
    assert "B (4)" in caught.value.message


def test_an_official_test_is_a_part_of_every_fold_and_none_of_its_patients_is_trained_on() -> None:
    whole = sites(("A", 20), ("B", 12), both=2)
    tested = {"A-000", "B-001"}
    items = tuple(
        Sample(s.path, s.label, s.patient, "test" if s.patient in tested else "train", s.sha256, site=s.site)
        for s in whole.items
    )
    for fold in leave_out(Samples(Path(), CLASSES, items), "x", "site", 0):
        assert {s.patient for s in fold.parts["official"]} == tested
        assert not tested & {s.patient for part in PARTS for s in fold.parts[part]}


def test_images_without_a_site_are_refused_by_name() -> None:
    samples = sites(("A", 6), ("B", 6))
    bare = Samples(Path(), CLASSES, (*samples.items, Sample("z.png", 0, "z", None, "z")))
    with pytest.raises(OctcError) as caught:
        leave_out(bare, "x", "site", 0)
    assert (caught.value.code, "z.png" in str(caught.value.place)) == ("OCT-E209", True)


def test_sizes_come_from_the_files(tmp_path: Path) -> None:
    lines = ["path,label,patient,Device"]
    for p in range(24):
        size = (40, 32) if p % 4 < 2 else (64, 32)
        name = f"{p:02d}.png"
        Image.effect_noise(size, 40).save(tmp_path / name)
        lines.append(f"{name},{CLASSES[p % 2]},p{p},{'one' if p < 12 else 'two'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    samples = scan_csv(tmp_path, None)
    assert acquisitions_of(samples.root, samples.items, "size") == ["40x32" if p % 4 < 2 else "64x32" for p in range(24)]
    assert acquisitions_of(samples.root, samples.items, "site") == ["one"] * 12 + ["two"] * 12
    again = tmp_path / "again.csv"
    again.write_text("\n".join([*lines, "00.png,DRUSEN,p0,two"]) + "\n")
    with pytest.raises(OctcError, match="lines of the table cannot be used"):
        scan_csv(again, None)
    folds = make_splits(samples, "csv", by="size")
    assert [fold.left_out for fold in folds] == ["size 40x32", "size 64x32"]
    folds[0].write(tmp_path / "split.json")
    assert read_split(tmp_path / "split.json") == folds[0]
    (tmp_path / "00.png").write_bytes(b"no image")
    with pytest.raises(OctcError) as caught:
        make_splits(samples, "csv", by="size")
    assert (caught.value.code, caught.value.place) == ("OCT-E201", "00.png")


@pytest.mark.parametrize("more", [{"folds": 5}, {"protocol": "as-released"}])
def test_other_folds_contradict_it(more: dict[str, object]) -> None:
    with pytest.raises(OctcError) as caught:
        make_splits(sites(("A", 6), ("B", 6)), "x", by="site", **more)  # type: ignore[arg-type]
    assert caught.value.code == "OCT-E102"
