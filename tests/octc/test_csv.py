"""A data set that a table names (F11): patients and parts as they are written, every wrong line named, nothing guessed."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.audit import audit
from octc.datasets.base import Reading
from octc.datasets.registry import guess_layout, scan_dataset
from octc.datasets.split import make_split
from octc.datasets.tables import rows_of
from tests.octc.neh_tree import picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    lines = ["path,label,patient,scanner"]
    for patient in range(8):
        for index in range(2):
            label = ("dry", "wet")[patient % 2]
            picture(folder / f"scans/p{patient}/{index}.jpg", 10 * patient + index)
            lines.append(f'scans/p{patient}/{index}.jpg,{label},"Meier, {patient}",B')
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def rewrite(root: Path, change: str, into: str, count: int = -1) -> None:
    table = root / "labels.csv"
    text = table.read_text()
    assert change in text
    table.write_text(text.replace(change, into, count))


def refused(root: Path) -> OctcError:
    with pytest.raises(OctcError) as caught:
        scan_dataset("csv", root)
    return caught.value


def test_paths_labels_and_patients_come_from_the_table(root: Path) -> None:
    samples = scan_dataset("csv", root)
    assert samples.classes == ("dry", "wet")
    assert len(samples.items) == 16
    assert {s.patient for s in samples.items} == {f"Meier, {n}" for n in range(8)}
    assert {s.part for s in samples.items} == {None}
    assert all(len(s.sha256) == 64 for s in samples.items)
    assert guess_layout(root) == "csv"
    assert make_split(samples, "csv", 0).digest
    assert audit("csv", root).findings == ()


def test_a_split_that_the_table_states_is_kept(root: Path) -> None:
    rewrite(root, ",scanner", ",part")
    for patient, part in enumerate(("train", "train", "val", "val", "train", "train", "test", "test")):
        rewrite(root, f'"Meier, {patient}",B', f'"Meier, {patient}",{part}')
    samples = scan_dataset("csv", root)
    assert Counter(s.part for s in samples.items) == {"train": 8, "val": 4, "test": 4}
    for seed in (0, 1):
        split = make_split(samples, "csv", seed)
        assert {part: {s.patient for s in items} for part, items in split.parts.items()} == {
            "train": {"Meier, 0", "Meier, 1", "Meier, 4", "Meier, 5"},
            "val": {"Meier, 2", "Meier, 3"},
            "test": {"Meier, 6", "Meier, 7"},
        }
    rewrite(root, '"Meier, 7",test', '"Meier, 7",')
    assert "split '' is none of train, val, test" in str(refused(root).place)


def test_a_class_that_only_test_has_is_refused(root: Path) -> None:
    rewrite(root, ",scanner", ",part")
    rewrite(root, ",B", ",train")
    for index in range(2):
        rewrite(root, f'scans/p7/{index}.jpg,wet,"Meier, 7",train', f'scans/p7/{index}.jpg,rare,"Meier, 7",test')
    error = refused(root)
    assert error.code == "OCT-E207"
    assert "rare" in error.message


def test_an_empty_patient_is_one_that_is_not_known(root: Path) -> None:
    rewrite(root, '"Meier, 0"', "")
    samples = scan_dataset("csv", root)
    assert [s.patient for s in samples.items[:3]] == [None, None, "Meier, 1"]
    assert "OCT-W212" in {f.code for f in audit("csv", root).warnings}


@pytest.mark.parametrize(
    ("change", "into", "said"),
    [
        ("scans/p0/0.jpg", "../p0/0.jpg", "no path below the table's folder"),
        ("scans/p0/0.jpg", "/scans/p0/9.jpg", "no path below the table's folder"),
        ("scans/p0/0.jpg", "C:\\scans\\0.jpg", "fits several images: scans/p0/0.jpg, scans/p1/0.jpg"),
        ("scans/p0/0.jpg", "scans/p0/0.txt", "no image by its name"),
        ("scans/p0/0.jpg,dry", "scans/p0/0.jpg,", "label '' is none of dry, wet"),
        ("scans/p0/0.jpg,dry", "./scans/p0/1.jpg,wet", "stood above with another label, patient, split or site"),
        ("scans/p0/0.jpg,dry", "scans\\\\p0/1.jpg,wet", "stood above with another label, patient, split or site"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(root: Path, change: str, into: str, said: str) -> None:
    rewrite(root, change, into, 1)
    error = refused(root)
    assert (error.code, error.exit_code) == ("OCT-E209", 3)
    assert said in str(error.place)
    assert "line 2" in str(error.place) or "line 3" in str(error.place)


def test_a_column_that_is_missing_or_doubled(root: Path) -> None:
    rewrite(root, ",label,", ",what,", 1)
    error = refused(root)
    assert error.message.startswith("columns missing or doubled: label; the table has path, what, patient")
    assert error.hint.startswith("--column label=NAME")
    rewrite(root, ",what,patient,scanner", ",label,patient,patient", 1)
    assert refused(root).code == "OCT-E209"


def test_without_a_column_of_patients_nobody_is_known(root: Path) -> None:
    rewrite(root, ",patient,", ",whoever,", 1)
    assert {s.patient for s in scan_dataset("csv", root).items} == {None}


def test_the_same_line_twice_counts_once_and_is_said(root: Path) -> None:
    table = root / "labels.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    samples = scan_dataset("csv", root)
    assert len(samples.items) == 16
    assert [note.code for note in samples.notes] == ["OCT-W218"]


def test_missing_files_are_listed_and_links_out_of_the_root_refused(root: Path, tmp_path: Path) -> None:
    (root / "scans/p0/0.jpg").unlink()
    (found,) = audit("csv", root).findings
    assert found.code == "OCT-E201"
    assert found.items[0].startswith("scans/p0/0.jpg (cannot be read")
    (root / "scans/p0/0.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (tmp_path / "elsewhere.jpg").write_bytes(b"x")
    assert refused(root).code == "OCT-E205"


def test_which_table_is_meant(root: Path) -> None:
    (root / "labels.csv").rename(root / "people.csv")
    (root / "notes.csv").write_text("a,b\n1,2\n")
    assert len(scan_dataset("csv", root).items) == 16
    (root / "more.csv").write_text((root / "people.csv").read_text())
    assert refused(root).code == "OCT-E230"
    (root / "labels.csv").write_text((root / "people.csv").read_text())
    assert len(scan_dataset("csv", root).items) == 16


def test_one_class_and_a_mark_of_byte_order(root: Path) -> None:
    table = root / "labels.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(scan_dataset("csv", root).items) == 16
    rewrite(root, ",wet,", ",dry,")
    assert refused(root).code == "OCT-E206"


def test_what_r_writes_for_a_missing_cell_is_no_split(root: Path) -> None:
    rewrite(root, ",scanner", ",split")
    rewrite(root, ",B\n", ",NA\n")
    samples = scan_dataset("csv", root)
    assert {s.part for s in samples.items} == {None}


@pytest.mark.parametrize("before", ["", "\n", "\r\n   \r\n"])
def test_the_separator_is_that_of_the_first_line_with_cells_and_outside_of_quotes(root: Path, before: str) -> None:
    table = root / "labels.csv"
    rows = [line.split(",", 2) for line in table.read_text().splitlines()]
    lines = [";".join((path, label, rest.rsplit(",", 1)[0])) for path, label, rest in rows]
    lines[0] = 'path;"label, final, as read";patient'
    table.write_text(before + "\n".join(lines) + "\n")
    samples = scan_dataset("csv", root, reading=Reading(columns={"label": "label, final, as read"}))
    assert (len(samples.items), samples.classes) == (16, ("dry", "wet"))


def test_a_file_that_is_gone_is_no_other_file_of_its_name(root: Path) -> None:
    """scans/p3/9.jpg is not there, and a file of that name lies with another patient, whom no line names."""
    picture(root / "scans/p0/9.jpg", 99)
    table = root / "labels.csv"
    table.write_text(table.read_text() + "scans/p3/9.jpg,wet,Z,B\n")
    items = {s.path: s for s in scan_dataset("csv", root).items}
    assert items["scans/p3/9.jpg"].sha256 == ""
    assert "scans/p0/9.jpg" not in items


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accent_is_one_in_both_of_its_forms(root: Path, form: str) -> None:
    """As macOS stores it in the name of a file, and another system in a table."""
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    picture(root / unicodedata.normalize(form, "scans/Gerät/ü1.jpg"), 77)
    table = root / "labels.csv"
    table.write_text(table.read_text() + unicodedata.normalize(other, "scans/Gerät/ü1.jpg") + ",wet,Z,B\n")
    assert all(s.sha256 for s in scan_dataset("csv", root).items)


@pytest.mark.parametrize(
    ("text", "lines"), [('{"path": "a"}\n{"path": "b"}\n', True), ('[{"path": "a"},\n{"path": "b"}]', False)]
)
def test_the_hint_for_json_reads_lines_where_it_is_lines(text: str, *, lines: bool, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(OctcError) as caught:
        rows_of(table)
    assert (caught.value.code, "lines=True" in caught.value.hint) == ("OCT-E209", lines)
