"""Whose images are, by a rule that is stated, and tables as people have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.datasets.patient_rules import PatientRule, apply_rule, read_rule, rule_of, wonders, write_rule
from octc.datasets.registry import guess_layout, scan_dataset
from octc.datasets.tables import columns_of, read_columns
from tests.cli.conftest import Said, said  # noqa: F401


def picture(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (48, 48), level).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, three people each with a folder of their own, two images of each."""
    for k, kind in enumerate(("AMD", "NORMAL")):
        for person in range(3):
            for index in range(2):
                picture(
                    tmp_path / "set" / kind / f"P{k}{person}" / f"OD_P{k}{person}_{index}.png", 40 * k + 10 * person + index
                )
    return tmp_path / "set"


@pytest.mark.parametrize(("rule", "people"), [
    (PatientRule("unknown"), {None}),
    (PatientRule("pattern", r"P(\d+)_"), {"00", "01", "02", "10", "11", "12"}),
    (PatientRule("pattern", r"/P\d\d"), {"/P00", "/P01", "/P02", "/P10", "/P11", "/P12"}),
    (PatientRule("pattern", r"(OD)_(?P<patient>P1\d)"), {None, "P10", "P11", "P12"}),
    (PatientRule("folder"), {"P00", "P01", "P02", "P10", "P11", "P12"}),
    (PatientRule("name"), {"OD_P00", "OD_P01", "OD_P02", "OD_P10", "OD_P11", "OD_P12"}),
])  # fmt: skip
def test_a_rule_gives_the_patients(rule: PatientRule, people: set[str | None], tree: Path) -> None:
    samples = scan_dataset("folder", tree)
    assert {s.patient for s in apply_rule(samples, rule).items} == people
    assert apply_rule(samples, rule).digest == samples.digest


def test_a_class_folder_is_no_patient(tmp_path: Path) -> None:
    for kind in ("A", "B"):
        picture(tmp_path / kind / "x1.png", ord(kind))
    assert {s.patient for s in apply_rule(scan_dataset("folder", tmp_path), PatientRule("folder")).items} == {None}


@pytest.mark.parametrize("lines", [
    "file_name,Patient ID\nOD_P00_0,a\nOD_P00_1,a\nOD_P01_0.png,b\n",
    "Path;patient\n/x/set/AMD/P00/OD_P00_0.png;a\nAMD/P00/OD_P00_1.png;a\nOD_P01_0.PNG;b\n",
])  # fmt: skip
def test_a_table_gives_the_patients(lines: str, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(lines)
    found = apply_rule(scan_dataset("folder", tree), PatientRule("table", str(tmp_path / "people.csv")))
    known = {s.path.rpartition("/")[2]: s.patient for s in found.items if s.patient is not None}
    assert known == {"OD_P00_0.png": "a", "OD_P00_1.png": "a", "OD_P01_0.png": "b"}


def test_options_that_do_not_go_together_are_refused() -> None:
    assert rule_of(None, None, None) is None
    assert rule_of(None, None, "people.csv") == PatientRule("table", "people.csv")
    for options, code in (
        (("unknown", "x", None), "OCT-E102"), (("known", None, None), "OCT-E104"), ((None, "(", None), "OCT-E104"),
        ((None, "(a)(b)", None), "OCT-E104"),
    ):  # fmt: skip
        with pytest.raises(OctcError) as caught:
            rule_of(*options)
        assert caught.value.code == code


@pytest.mark.parametrize(("rule", "words"), [
    (PatientRule("unknown"), "no patient of any image is known"),
    (PatientRule("pattern", "OD"), "every image is of one patient"),
    (PatientRule("pattern", r"[^/]+$"), "a patient of its own"),
    (PatientRule("pattern", r"P0\d"), "6 of 12 images have no patient"),
])  # fmt: skip
def test_what_looks_wrong_is_said(rule: PatientRule, words: str, tree: Path) -> None:
    found = list(wonders(apply_rule(scan_dataset("folder", tree), rule)))
    assert any(words in one.message for one in found)
    assert not list(wonders(apply_rule(scan_dataset("folder", tree), PatientRule("folder"))))


def test_dates_and_spellings_are_said(tmp_path: Path) -> None:
    for k, kind in enumerate(("A", "B")):
        for n, day in enumerate(("20190304", "20200511", "20180220")):
            picture(tmp_path / kind / f"{day}x{k}{n}_1.png", 100 * k + n)
    samples = scan_dataset("folder", tmp_path)
    found = [one.message for one in wonders(apply_rule(samples, PatientRule("pattern", r"\d{8}")))]
    assert found == ["3 patients look like dates"]
    people = zip(samples.items, ("P1", "p 1", "7", "7.0", "8", "9"), strict=True)
    (tmp_path / "people.csv").write_text("file,patient\n" + "".join(f"{s.path},{name}\n" for s, name in people))
    told = list(wonders(apply_rule(samples, PatientRule("table", str(tmp_path / "people.csv")))))
    (one,) = [found for found in told if "spelling" in found.message]
    assert one.items == ("7 = 7.0", "P1 = p 1")


def test_a_rule_is_kept_by_the_digest_of_its_images(tree: Path, tmp_path: Path) -> None:
    digest = scan_dataset("folder", tree).digest
    assert read_rule(tmp_path / "runs", digest) is None
    write_rule(tmp_path / "runs", digest, PatientRule("folder"))
    write_rule(tmp_path / "runs", "other", PatientRule("pattern", "x"))
    assert read_rule(tmp_path / "runs", digest) == PatientRule("folder")


def test_the_command_previews_and_saves(tree: Path, said: Said) -> None:  # noqa: F811
    code, out, err = said("data", "patients", str(tree), "--patient-pattern", r"P(\d+)_", "--json")
    assert code == 0, err
    document = json.loads(out)["data"]
    assert (document["patients"], document["images"], document["unknown"], document["saved"]) == (6, 12, 0, False)
    code, _, err = said("data", "patients", str(tree), "--save")
    assert (code, "OCT-E102" in err) == (2, True)
    assert said("data", "patients", str(tree), "--patient-from", "folder", "--save")[0] == 0
    code, _, err = said("data", "patients", str(tree))
    assert "--patient-from folder (saved before)" in err
    code, out, _ = said("data", "split", str(tree), "--json")
    assert code == 0
    assert json.loads(out)["data"]["patient_ids"] == "known"


def test_columns_are_found_by_their_usual_names(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("File Name;DISEASE;condition;Patient_ID\na.png;AMD;MNV;1\n", "utf-8")
    assert read_columns(table, ("path", "label", "patient")) == [(2, {"path": "a.png", "label": "AMD", "patient": "1"})]
    table.write_text("Path (Trial/Image Type/Subject/Visit/Eye/Image Name)\tB1\tPatient_ID\n/x/a.png\t1\t7\n", "utf-16")
    assert columns_of(table)["path"] == "Path (Trial/Image Type/Subject/Visit/Eye/Image Name)"
    for header in ("file,patient", "path,label,label,patient", "path,label,patient\nonly one"):
        table.write_text(header + "\n", "utf-8")
        with pytest.raises(OctcError) as caught:
            read_columns(table, ("path", "label", "patient"))
        assert caught.value.code == "OCT-E209"


def test_a_table_that_contradicts_itself_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("file,patient\nOD_P00_0.png,a\nAMD/P00/OD_P00_0.png,b\n")
    with pytest.raises(OctcError) as caught:
        apply_rule(scan_dataset("folder", tree), PatientRule("table", str(tmp_path / "people.csv")))
    assert "is of 'a' and of 'b'" in str(caught.value.place)


def test_the_table_of_octdl(tmp_path: Path) -> None:
    """OCTDL_labels.csv: names without an ending, in folders of the disease."""
    lines = ["file_name,disease,subcategory,condition,patient_id,eye,sex,year"]
    for n in range(6):
        kind = ("AMD", "NO")[n % 2]
        picture(tmp_path / "OCTDL" / kind / f"{kind.lower()}_{n}.jpg", 20 * n)
        lines.append(f"{kind.lower()}_{n},{kind},x,MNV,{n // 2},OD,F,2020")
    (tmp_path / "OCTDL_labels.csv").write_text("\n".join(lines) + "\n")
    assert guess_layout(tmp_path) == "csv"
    samples = scan_dataset("csv", tmp_path)
    assert samples.classes == ("AMD", "NO")
    assert [s.path for s in samples.items][:2] == ["OCTDL/AMD/amd_0.jpg", "OCTDL/AMD/amd_2.jpg"]
    assert {s.patient for s in samples.items} == {"0", "1", "2"}
    assert all(s.sha256 for s in samples.items)


def test_absolute_paths_of_another_machine_tabs_and_labels_in_two_spellings(tmp_path: Path) -> None:
    lines = ["Image Path\tDiagnosis\tSubject\tSplit"]
    for n in range(8):
        picture(tmp_path / "Images" / f"s{n % 4}" / f"{n}.PNG", 20 * n)
        label, part = ("Drusen", "drusen", "normal", "normal")[n % 4], ("Training", "test")[n // 4]
        lines.append(f"D:\\data\\images\\S{n % 4}\\{n}.png\t{label}\t{n}\t{part}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    samples = scan_dataset("csv", tmp_path)
    assert [s.path for s in samples.items][:2] == ["Images/s0/0.PNG", "Images/s0/4.PNG"]
    assert {s.part for s in samples.items} == {"train", "test"}
    (note,) = [one for one in samples.notes if one.code == "OCT-W221"]
    assert note.items == ("Drusen = drusen",)
