"""Data as newcomers have them: what is refused says what it is, and its hint works."""

from __future__ import annotations

import gzip
import subprocess
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.base import Samples
from octc.datasets.registry import scan_dataset
from tests.class_tree import write_tree

Octc = Callable[..., "subprocess.CompletedProcess[str]"]


def refused(kind: str, place: Path) -> OctcError:
    with pytest.raises(OctcError) as caught:
        scan_dataset(kind, place)
    return caught.value


def test_one_class_in_two_forms_of_an_accent_is_told_apart_by_its_codes(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Drüsen") for form in ("NFC", "NFD")]
    write_tree(tmp_path, [f"{name}/{name[0]}-{n}-0.png" for name in ("CNV", *names) for n in range(3)])
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system takes both forms for one name")
    found = refused("folder", tmp_path)
    assert found.code == "OCT-E206"
    assert "the encoding of an accent" in found.message
    assert "'Dr\\xfcsen'" in found.message
    assert "'Dru\\u0308sen'" in found.message


def test_patients_above_classes_become_a_table_by_the_hint(tmp_path: Path) -> None:
    root = tmp_path / "a set"
    write_tree(root, [f"P{p}/{kind}/{n}, left.png" for p in range(3) for kind in ("CNV", "NORMAL") for n in range(2)])
    found = refused("folder", root)
    assert found.code == "OCT-E206"
    begin, end = found.hint.index("(cd "), found.hint.index("labels.csv)") + len("labels.csv)")
    (root / "P0" / "CNV" / "Thumbs.db").write_text("")
    subprocess.run(["sh", "-c", found.hint[begin:end]], check=True, timeout=20)
    samples = scan_dataset("csv", root)
    assert samples.classes == ("CNV", "NORMAL")
    assert {(s.path, s.patient) for s in samples.items if s.label == 0} == {
        (f"P{p}/CNV/{n}, left.png", f"P{p}") for p in range(3) for n in range(2)
    }


def test_a_workbook_is_no_table_of_text(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "labels.csv", "w") as made:
        made.writestr("xl/workbook.xml", "<x/>")
    found = refused("csv", tmp_path / "labels.csv")
    assert (found.code, "workbook" in found.message, "CSV" in found.hint) == ("OCT-E209", True, True)


def test_a_column_for_each_class_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, [f"{n}.png" for n in range(6)])
    rows = [f"{n}.png,{n},{int(n % 2 == 0)},{int(n % 2 == 1)}" for n in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,age,AMD,DME", *rows]) + "\n")
    found = refused("csv", tmp_path / "labels.csv")
    assert "AMD, DME contain 0 and 1" in found.message
    assert "t[['AMD', 'DME']].idxmax(axis=1)" in found.hint


ROWS = [f"i{n}.png,{'dry' if n % 2 else 'wet'},P{n // 2}" for n in range(6)]
TEXT = "\n".join(["path,label,patient", *ROWS]) + "\n"


@pytest.mark.parametrize(
    ("data", "what", "hint"),
    [
        (TEXT.encode("utf-16-le"), "UTF-16 with its mark", "UTF-8"),
        (TEXT.encode("utf-32"), "UTF-16 with its mark", "UTF-8"),
        (TEXT.replace("dry", "trö").encode("latin-1"), "not UTF-8", "UTF-8"),
        (gzip.compress(TEXT.encode(), mtime=0), "gzip", "unpack"),
        (b"PAR1\x15\x04\x00\x00", "Parquet", "read_parquet"),
        (b'\n{"images": []}', "JSON", "read_json"),
        (b"PK\x03\x04 an archive", "a zip archive", "unpack"),
    ],
    ids=["utf-16 without a mark", "utf-32", "latin-1", "gzip", "parquet", "json", "zip"],
)
def test_what_is_no_table_is_named(data: bytes, what: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(data)
    found = refused("csv", tmp_path / "labels.csv")
    assert (found.code, what in found.message, hint in found.hint) == ("OCT-E209", True, True)
    assert "lines do not have" not in found.message


@pytest.mark.parametrize("mark", ["sep=;\n", "SEP=;\r\n", ""])
def test_the_line_by_which_a_spreadsheet_states_its_separator_is_no_header(mark: str, tmp_path: Path) -> None:
    write_tree(tmp_path, [f"i{n}.png" for n in range(6)])
    table = tmp_path / "labels.csv"
    table.write_bytes((mark + TEXT.replace(",", ";")).encode("utf-8-sig"))
    samples = scan_dataset("csv", table)
    assert {(s.path, samples.classes[s.label], s.patient) for s in samples.items} == {tuple(row.split(",")) for row in ROWS}
    table.write_text(mark + TEXT.replace(",", ";") + "i9.png;dry\n")
    assert f"line {9 if mark else 8} (2 cells)" in str(refused("csv", table).place)


@pytest.mark.parametrize("word", ["NaN", "n/a", "NULL", "#N/A", "<NA>", ""])
def test_a_cell_that_says_that_there_is_no_label_is_no_class(word: str, tmp_path: Path) -> None:
    write_tree(tmp_path, [f"i{n}.png" for n in range(7)])
    table = tmp_path / "labels.csv"
    table.write_text(TEXT + f"i6.png,{word},P9\n")
    found = refused("csv", table)
    assert (found.code, "line 8" in str(found.place), "dry, wet" in str(found.place)) == ("OCT-E209", True, True)
    table.write_text(TEXT + "i6.png,none,P9\n")
    assert scan_dataset("csv", table).classes == ("dry", "none", "wet")


def test_a_path_that_is_not_there_is_not_called_an_unknown_name(octc: Octc, tmp_path: Path) -> None:
    for word in (str(tmp_path / "images"), "labels.csv"):
        done = octc("data", "check", word, cwd=tmp_path)
        assert done.returncode == 3
        assert "OCT-E230" in done.stderr
        assert "no such folder or table" in done.stderr
    assert octc("data", "check", "imagez", cwd=tmp_path).returncode == 2


def of_table(root: Path, rows: Sequence[tuple[str, str]], header: str = "path,label,patient") -> Samples:
    """A table of images that are there: the label and the patient of each."""
    write_tree(root, [f"{i}.png" for i in range(len(rows))])
    lines = [f"{i}.png,{label},{patient}" for i, (label, patient) in enumerate(rows)]
    (root / "labels.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return scan_dataset("csv", root)


@pytest.mark.parametrize("mark", ["\u200b", "\ufeff", "\u200e", "\u00a0", "\u2060 "])
def test_marks_that_nobody_sees_make_no_class_and_no_patient(mark: str, tmp_path: Path) -> None:
    samples = of_table(tmp_path, [("CNV", "p1"), (f"CNV{mark}", f"{mark}p1"), ("DME", "p2"), (f"{mark}DME", "p2")])
    assert samples.classes == ("CNV", "DME")
    assert [s.patient for s in samples.items] == ["p1", "p1", "p2", "p2"]
    assert samples.notes == ()


@pytest.mark.parametrize("word", ["#NAME?", "#DIV/0!", "#NV", "#BEZUG!", "########"])
def test_what_a_spreadsheet_writes_for_a_failed_formula_is_no_patient_and_no_class(word: str, tmp_path: Path) -> None:
    people = [("CNV", "p1"), ("DME", "p2"), ("CNV", word), ("DME", word)]
    assert [s.patient for s in of_table(tmp_path, people).items] == ["p1", "p2", None, None]
    with pytest.raises(OctcError) as caught:
        of_table(tmp_path, [("CNV", "p1"), ("DME", "p2"), (word, "p3")])
    assert (caught.value.code, "line 4" in str(caught.value.place)) == ("OCT-E209", True)


@pytest.mark.parametrize(("people", "words"), [
    (["1.23457E+12", "1.23458E+12", "p3", "p4"], ["1.23457E+12", "1.23458E+12"]),
    (["12. Mrz", "Mar-12", "1905-07-10 00:00:00", "p4"], ["12. Mrz", "Mar-12", "1905-07-10 00:00:00"]),
    (["007", "7", "p3", "p4"], ["007 = 7"]),
    (["P2", "P\uff12", "p3", "p4"], ["P2 = P\uff12"]),
    (["OD", "OS", "od", "OS"], []),
    (["E+12", "marta-1", "2019", "1-23", "right hand", "12345678901234"], None),
])  # fmt: skip
def test_patients_that_a_spreadsheet_spoilt_are_named(people: list[str], words: list[str] | None, tmp_path: Path) -> None:
    samples = of_table(tmp_path, [("AB"[i % 2], one) for i, one in enumerate(people)])
    named = [(one.code, list(one.items)) for one in samples.notes if "letter case" not in one.message or words]
    assert named == ([] if words is None else [("OCT-W221", words)])


def test_a_header_below_a_title_and_merged_cells_are_told(tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        of_table(tmp_path, [("CNV", "p1"), ("DME", "p2")], "OCT study 2026,,\n\npath,label,patient")
    assert "line 3 looks like the header" in caught.value.hint
    with pytest.raises(OctcError) as caught:
        of_table(tmp_path, [("CNV", "p1"), ("", ""), ("", ""), ("DME", "p2"), ("", ""), ("", "")])
    pytest.importorskip("pandas")
    program = caught.value.hint[caught.value.hint.index("t = ") :]
    table = tmp_path / "labels.csv"
    exec(f"import pandas; TABLE = {str(table)!r}; {program}")  # as the hint has it
    samples = scan_dataset("csv", tmp_path)
    assert [(s.label, s.patient) for s in samples.items] == [(0, "p1")] * 3 + [(1, "p2")] * 3


@pytest.mark.parametrize(("name", "count", "told"), [
    ("P{:03d}_OD", 14, True), ("Patient {}", 14, True), ("{}", 14, True), ("grade {}", 9, False), ("{}", 5, False),
])  # fmt: skip
def test_many_numbered_class_folders_may_be_patients(name: str, count: int, *, told: bool, tmp_path: Path) -> None:
    write_tree(tmp_path, [f"{name.format(k)}/{i}.png" for k in range(count) for i in range(2)])
    samples = scan_dataset("folder", tmp_path)
    assert len(samples.classes) == count
    assert [one.code for one in samples.notes] == ["OCT-W222"] * told
