"""Whose image it is: what a file name may give, what never is a patient, and what is said where nobody is known."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from octc.core.cells import given
from octc.core.errors import OctcError
from octc.datasets.audit import audit
from octc.datasets.base import Sample, Samples
from octc.datasets.folds import make_folds
from octc.datasets.layouts.paired import check_partners
from octc.datasets.patient_rules import alike
from octc.datasets.patients import patient_of, patients_of, without_dates
from octc.datasets.registry import scan_dataset
from octc.datasets.split import check_split, groups_of, make_split, read_split
from octc.datasets.statistics import read_stats
from octc.stats.patients import patient_ids, set_words, words_of

UNKNOWN = "patients unknown: leakage cannot be excluded; intervals are not clustered"


@pytest.mark.parametrize(
    ("stem", "folder", "patient"),
    [
        ("CNV-1016042-1", "CNV", "1016042"),
        ("CNV_1016042_1", "CNV", "1016042"),
        ("cnv_1016042-1", "CNV", "1016042"),
        ("amd_wet_12_3", "AMD-WET", "12"),
        ("AMD-WET-12-3", "amd_wet", "12"),
        ("CNV-7-7", "disease", "7"),  # UCSD's names under folders of another study
        ("CNV-99123456-1", "CNV", "99123456"),  # eight digits that are no day
        ("CNV-1016042-20190303", "CNV", "1016042"),
        ("CNV-1016042-2019-03-03", "CNV", "1016042"),
        ("CNV-12-1-2", "CNV", "12"),
        ("Dru\u0308sen-12-1", "Dr\u00fcsen", "12"),  # a Mac's spelling of one name
        ("OD-12-3", "CNV", None),
        ("IMG-12-3", "CNV", None),
        ("12-3", "CNV", None),
        ("1-12-3", "1", None),
        ("CNV-12", "CNV", None),
        ("CNV-\u0661\u0662-3", "CNV", None),
    ],
)
def test_the_name_of_the_class_then_the_patient_then_an_index(stem: str, folder: str, patient: str | None) -> None:
    assert patient_of(stem, folder) == patient


DATES = (
    "2019-03-03", "2019_03_03", "2019-3-3", "03-03-2019", "3-3-2019", "12-31-1999", "31_12_1999", "2019-03-03T10-11-12",
    "2019-03-03_2", "20190303-1", "20190303_101112", "20190303101112-1", "201903031011-1", "20190303T101112-1", "03032019-1",
    "12311999-1", "2019-1", "2019-03", "03-2019", "201903-1", "190303-1", "19-03-03", "03-03-19", "2019.03.03-1",
    "20190303101112123-1", "2019030310-1",
)  # fmt: skip


@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize("before", ["CNV-", "CNV_", "OD-", "OS_", "L-", "R-", "", "CNV-OD-"])
def test_a_date_is_never_a_patient(before: str, date: str) -> None:
    assert patient_of(f"{before}{date}", "CNV") is None
    assert patients_of([(f"{before}{date}", "CNV"), ("CNV-1016042-1", "CNV")], ("CNV", "DME")) == [None, "1016042"]


def test_digits_that_may_be_a_date_are_told_in_company() -> None:
    """UCSD has patients 2038 and 180600: among numbers of as many digits, most of which are no date, they are numbers."""
    numbers = ["1569", "2967", "3871", "2038", "111867", "113353", "180600"]
    assert patients_of([(f"CNV-{n}-1", "CNV") for n in numbers]) == numbers
    assert patients_of([(f"CNV-{n}-1", "CNV") for n in ("2018", "2019", "1016042")]) == [None, None, "1016042"]
    hospital = [f"{n}" for n in range(70000000, 70000040)]
    assert without_dates([*hospital, "20190303", None]) == [*hospital, "20190303", None]
    assert without_dates(["20190303", "20190304", "p-1"]) == [None, None, "p-1"]


def test_a_moved_image_keeps_the_patient_of_its_name() -> None:
    """Relabelled from wet to dry: its file still says wet."""
    assert patients_of([("wet-12-1", "dry"), ("wet-12-2", "wet"), ("other-12-3", "wet")], ("dry", "wet")) == ["12", "12", None]


def test_the_real_images_have_the_patients_of_their_table(ucsd: Path) -> None:
    with (ucsd / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        known = {row["path"]: row["patient"] for row in csv.DictReader(stream)}
    samples = scan_dataset("ucsd", ucsd)
    assert {s.path: s.patient for s in samples.items} == known
    assert samples.patient_ids.state == "known"


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "NaN", "None", "null", "unknown", "?", "-", "Not known"])
def test_words_for_nothing_are_no_patient(cell: str) -> None:
    assert given(cell) is None


def test_what_is_said_of_a_set() -> None:
    nobody, some, all_ = patient_ids([None] * 3), patient_ids(["a", None, "a", "b"]), patient_ids(["a", "a", "b"])
    assert [one.state for one in (nobody, some, all_)] == ["unknown", "partial", "known"]
    assert [one.count for one in (nobody, some, all_)] == [None, 2, 2]
    assert nobody.warning == words_of("unknown") == UNKNOWN
    assert some.leakage == "1 image has no patient id (of 4): leakage cannot be excluded"
    assert (all_.leakage, all_.warning, words_of("known")) == ("", "", "")
    assert "not recorded" in words_of(None)
    assert patient_ids(()).state == "unknown"
    assert set_words({"n": 3, "patients": None, **nobody.to_json()}) == nobody.words == "patients unknown"
    assert set_words({"n": 4, "patients": 2, **some.to_json()}) == some.words
    assert set_words({"n": 3, "patients": 2, **all_.to_json()}) == "2 patients"
    assert "older rule" in set_words({"n": 3, "patients": 2})


def tree(root: Path, names: dict[str, list[str]]) -> Path:
    """root/CLASS/NAME.png, each a picture of its own; NAME may hold folders: PART/NAME goes to root/PART/CLASS/NAME.png."""
    number = 0
    for kind, stems in names.items():
        for stem in stems:
            part, _, name = stem.rpartition("/")
            path = root / part / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.effect_noise((48, 40), 60)
            picture.putpixel((0, 0), number % 256)
            picture.save(path)
            number += 1
    return root


def plain(count: int = 12) -> dict[str, list[str]]:
    return {kind: [f"{kind}{i:03d}" for i in range(count)] for kind in ("dry", "wet")}


def dated(count: int = 12) -> dict[str, list[str]]:
    spelt = ("OD-2019-03-{0:02d}", "{1}-201903{0:02d}-1", "{1}_2019_03_{0:02d}", "{1}-{0:02d}-03-2019", "{1}-2019-{0}")
    return {kind: [spelt[i % len(spelt)].format(i + 1, kind) for i in range(count)] for kind in ("dry", "wet")}


@pytest.mark.parametrize("names", [plain(), dated()], ids=["no patients", "dates"])
def test_check_and_split_and_stats_claim_no_patient(tmp_path: Path, names: dict[str, list[str]]) -> None:
    root = tree(tmp_path / "set", names)
    report = audit("folder", root, near="off")
    assert report.counts == {"all": {"dry": 12, "wet": 12}}
    assert report.patients == {"all": {"dry": None, "wet": None}}
    assert (report.patient_ids, report.images_without_patient) == ("unknown", 24)
    assert report.leakage == "patients unknown: leakage cannot be excluded"
    (warning,) = [one for one in report.warnings if one.code == "OCT-W212"]
    assert (warning.message, len(warning.items)) == (UNKNOWN, 24)
    samples = scan_dataset("folder", root)
    split = make_split(samples, "folder", 0)
    assert set(split.people().values()) == {None}
    assert split.leakage == report.leakage
    split.write(tmp_path / "split.json")
    stored = json.loads((tmp_path / "split.json").read_text())
    assert (stored["patient_ids"], stored["images_without_patient"]) == ("unknown", 24)
    assert read_split(tmp_path / "split.json") == split
    stats = read_stats(samples, split)
    assert stats.patient_ids == "unknown"
    assert {count for row in stats.patients.values() for count in row.values()} == {None}


def test_dates_in_official_parts_are_not_one_patient_on_both_sides(tmp_path: Path) -> None:
    """The same day in train and test is no leakage, and no image is dropped for it."""
    names = {
        kind: [f"{part}/{kind}-2019-03-0{i}" for part in ("train", "test") for i in range(1, 7)] for kind in ("dry", "wet")
    }
    root = tree(tmp_path / "set", names)
    report = audit("folder", root, near="off")
    assert report.findings == ()
    assert report.counts == {"train": {"dry": 6, "wet": 6}, "test": {"dry": 6, "wet": 6}}
    split = make_split(scan_dataset("folder", root), "folder", 0)
    assert split.dropped == 0
    assert len(split.parts["test"]) == 12


def test_where_some_are_known_the_others_are_counted(tmp_path: Path) -> None:
    names = {kind: [f"{kind}-{100 + i}-1" for i in range(8)] + [f"scan{i}" for i in range(4)] for kind in ("dry", "wet")}
    root = tree(tmp_path / "set", names)
    report = audit("folder", root, near="off")
    assert report.patients == {"all": {"dry": 8, "wet": 8}}
    assert (report.patient_ids, report.images_without_patient) == ("partial", 8)
    assert "8 images have no patient id (of 24)" in report.leakage
    split = make_split(scan_dataset("folder", root), "folder", 0)
    assert sum(count or 0 for count in split.people().values()) == 8
    assert "leakage cannot be excluded" in split.leakage


def test_known_patients_stay_known_and_leakage_none(tmp_path: Path) -> None:
    names = {kind: [f"{kind}_{100 + i}_{j}" for i in range(8) for j in range(2)] for kind in ("dry", "wet")}
    root = tree(tmp_path / "set", names)
    report = audit("folder", root, near="off")
    assert (report.patient_ids, report.leakage, report.warnings) == ("known", "none", ())
    assert report.patients == {"all": {"dry": 8, "wet": 8}}
    assert make_split(scan_dataset("folder", root), "folder", 0).leakage == "none"


def test_one_patient_is_one_patient_and_cannot_be_split(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", {kind: [f"{kind}-7-{j}" for j in range(9)] for kind in ("dry", "wet")})
    report = audit("folder", root, near="off")
    assert report.patients == {"all": {"dry": 1, "wet": 1}}
    assert (report.patient_ids, report.leakage) == ("known", "none")
    with pytest.raises(OctcError) as caught:
        make_split(scan_dataset("folder", root), "folder", 0)
    assert caught.value.code == "OCT-E207"


def test_too_few_images_for_folds_are_not_called_patients(tmp_path: Path) -> None:
    samples = scan_dataset("folder", tree(tmp_path / "set", plain(3)))
    with pytest.raises(OctcError) as caught:
        make_folds(samples, "folder", 5, 0)
    assert caught.value.code == "OCT-E207"
    assert "patient" not in f"{caught.value.message} {caught.value.hint}"


def test_a_table_with_empty_and_missing_patients(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", plain())
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    for people, state, unnamed in ((["", "unknown", "NA"], "unknown", 24), (["", "p1", "p2"], "partial", 8)):
        rows = [f"{path},{path.split('/')[0]},{people[i % 3]}" for i, path in enumerate(paths)]
        (root / "labels.csv").write_text("\n".join(["path,label,patient", *rows]) + "\n")
        report = audit("csv", root, near="off")
        assert (report.patient_ids, report.images_without_patient) == (state, unnamed)
        assert "leakage cannot be excluded" in report.leakage
    (root / "labels.csv").write_text("\n".join(["path,label", *(f"{path},{path.split('/')[0]}" for path in paths)]) + "\n")
    report = audit("csv", root, near="off")  # a table without the column says of nobody who it is
    assert (report.patient_ids, report.images_without_patient) == ("unknown", 24)
    assert "leakage cannot be excluded" in report.leakage


def test_copies_of_images_without_a_patient_are_not_two_patients(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", {**plain(), "wet": [*plain()["wet"], "wet-12-1"]})
    (root / "dry/copy.png").write_bytes((root / "dry/dry000.png").read_bytes())
    (root / "wet/copy.png").write_bytes((root / "wet/wet-12-1.png").read_bytes())
    (found,) = [one for one in audit("folder", root, near="off").warnings if one.code == "OCT-W210"]
    assert "2 images" in found.message
    assert "patient" not in found.message


def sample(path: str, patient: str | None, **more: object) -> Sample:
    return Sample(path, 0, patient, None, f"sum of {path}", **more)  # type: ignore[arg-type]


def old(path: Path) -> None:
    """As it was written before it said whether patients were known."""
    value = json.loads(path.read_text())
    for name in ("patient_ids", "images_without_patient"):
        del value[name]
    path.write_text(json.dumps(value))


def test_a_split_of_before_is_read_with_the_rules_of_today(tmp_path: Path) -> None:
    """A date that was read as a patient is none; a patient that both rules give stays; nobody is added (nor found to leak)."""
    names = {kind: [f"{kind}-{100 + i}-1" for i in range(9)] for kind in ("dry", "wet")}
    split = make_split(scan_dataset("folder", tree(tmp_path / "set", names)), "folder", 0)
    split.write(tmp_path / "split.json")
    old(tmp_path / "split.json")
    assert read_split(tmp_path / "split.json").patient_ids == split.patient_ids
    wrong = {
        part: tuple(
            replace(s, path=f"dry/OD-2019-03-{i:02d}.png", patient="2019") if i == 0 else s for i, s in enumerate(items)
        )
        for part, items in split.parts.items()
    }
    replace(split, parts=wrong).write(tmp_path / "wrong.json")
    old(tmp_path / "wrong.json")
    again = read_split(tmp_path / "wrong.json")
    check_split(again)
    assert again.patient_ids.unnamed == 3
    assert again.digest == replace(split, parts=wrong).digest
    unread = {part: tuple(replace(s, patient=None) for s in items) for part, items in split.parts.items()}
    replace(split, parts=unread).write(tmp_path / "unread.json")
    old(tmp_path / "unread.json")
    assert read_split(tmp_path / "unread.json").patient_ids.state == "unknown"


@pytest.mark.parametrize(
    ("dataset", "patient", "eye", "state"),
    [
        ("multieye", "oct-x", "oct-x", "unknown"), ("mmc-amd", "e1", "e1", "unknown"), ("mmc-amd", "s1", "e1", "known"),
        ("topcon-mm", "2019", "2019-03", "unknown"), ("topcon-mm", "p4", "p4-L", "known"), ("csv", "NA", None, "unknown"),
        ("csv", "Meier", None, "known"), ("neh", "CNV/26", None, "known"), ("octmnist", "3", None, "unknown"),
    ],
)  # fmt: skip
def test_splits_of_before_of_other_data_sets(
    tmp_path: Path, dataset: str, patient: str, eye: str | None, state: str
) -> None:  # fmt: skip
    samples = Samples(tmp_path, ("A", "B"), tuple(sample(f"{i}.png", None, eye=None) for i in range(9)))
    labelled = replace(samples, items=tuple(replace(s, label=i % 2) for i, s in enumerate(samples.items)))
    split = make_split(labelled, dataset, 0)
    one = {part: tuple(replace(s, patient=patient, eye=eye) for s in items) for part, items in split.parts.items()}
    replace(split, parts=one).write(tmp_path / "split.json")
    old(tmp_path / "split.json")
    assert read_split(tmp_path / "split.json").patient_ids.state == state


def test_images_of_an_eye_stay_together_where_its_patient_is_not_known() -> None:
    items = [sample("a", None, eye="e1"), sample("b", None, eye="e1"), sample("c", None), sample("d", None)]
    assert groups_of(items) == [0, 0, 2, 3]
    samples = Samples(Path(), ("A",), tuple(items))
    split = make_split(replace(samples, items=(*items, *(sample(f"x{i}", None) for i in range(9)))), "mmc-amd", 0)
    other = replace(split, parts={**split.parts, "test": (replace(items[0], sha256="1"),), "train": (items[1],)})
    with pytest.raises(OctcError) as caught:
        check_split(other)
    assert (caught.value.code, "1 eyes" in caught.value.message) == ("OCT-E212", True)
    fundus = replace(split, parts={"train": (items[0],), "val": (), "test": ()})
    with pytest.raises(OctcError) as caught:
        check_partners(other, fundus)
    assert "1 eyes" in caught.value.message
    assert "patients" not in caught.value.message


def test_two_forms_of_an_accent_are_one_name_in_two_spellings() -> None:
    (found,) = alike("patients", ["M\u00fcller", "Mu\u0308ller", "Meier"])
    assert (found.code, found.items) == ("OCT-W221", ("Mu\u0308ller = M\u00fcller",))
