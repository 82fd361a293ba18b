"""NEH: the table is read as it is meant, and every known fault of the release is handled and said."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.audit import audit
from octc.datasets.base import Finding, Samples
from octc.datasets.folds import make_folds
from octc.datasets.registry import guess_layout, scan_dataset
from octc.datasets.released_splits import make_splits, patient_labels
from octc.datasets.split import make_split
from tests.octc.neh_tree import CLASSES, Line, picture, write_neh, write_table

IMAGES = "NEH_UT_2021RetinalOCTDataset"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Line]]:
    root = tmp_path_factory.mktemp("neh") / "NEH"
    return root, write_neh(root)


@pytest.fixture
def tree(drawn: tuple[Path, list[Line]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn[0], tmp_path / "NEH"))


@pytest.fixture
def lines(drawn: tuple[Path, list[Line]]) -> list[Line]:
    return list(drawn[1])


def noted(samples: Samples, code: str) -> list[Finding]:
    return [note for note in samples.notes if note.code == code]


def refused(root: Path, name: str = "neh") -> OctcError:
    with pytest.raises(OctcError) as caught:
        scan_dataset(name, root)
    return caught.value


def place(samples: Samples, path: str) -> str | None:
    return next(s.patient for s in samples.items if s.path == f"{IMAGES}/{path}")


def test_class_and_number_together_are_the_patient(tree: Path) -> None:
    """A4: numbers restart in every class folder."""
    samples = scan_dataset("neh", tree)
    assert samples.classes == CLASSES
    assert len({s.patient for s in samples.items}) == 18
    assert place(samples, "CNV/1/OD/000_cnv.jpg") == "CNV/1"
    assert samples.notes == samples.left_out == ()
    assert guess_layout(tree) == "neh"


def test_the_filter_is_a_switch(tree: Path) -> None:
    """F06: `Class == Label` keeps only the slices that show their patient's diagnosis."""
    own, every = scan_dataset("neh", tree), scan_dataset("neh-all", tree)
    assert Counter(s.label for s in own.items) == {0: 18, 1: 12, 2: 12}
    assert Counter(s.label for s in every.items) == {0: 30, 1: 12, 2: 12}
    assert own.digest != every.digest


def test_letter_case_and_slashes_of_the_table_do_not_matter(tree: Path, lines: list[Line]) -> None:
    folder = tree / IMAGES
    (folder / "NORMAL").rename(folder / "Normal")
    odd = [(*line[:5], str(line[5]).replace("NORMAL/", "NOrmal/").replace("CNV/", "\\CNV\\")) for line in lines]
    write_table(tree, odd)
    samples = scan_dataset("neh", tree)
    assert len(samples.items) == 42
    assert place(samples, "Normal/1/OD/000_normal.jpg") == "NORMAL/1"
    assert all((tree / s.path).is_file() and s.sha256 for s in samples.items)


def test_a_path_that_fits_two_files_is_refused_unless_one_is_written_so(tree: Path, lines: list[Line]) -> None:
    picture(tree / IMAGES / "CNV/1/OD/000_CNV.jpg", 1)
    assert place(scan_dataset("neh", tree), "CNV/1/OD/000_cnv.jpg") == "CNV/1"
    write_table(tree, [(*line[:5], str(line[5]).replace("000_cnv", "000_Cnv")) for line in lines])
    error = refused(tree)
    assert error.code == "OCT-E209"
    assert "fits" in str(error.place)


def test_the_table_may_lie_beside_or_among_the_images(tree: Path) -> None:
    shutil.move(tree / "data_information.csv", tree / IMAGES / "data_information.csv")
    assert len(scan_dataset("neh", tree).items) == 42
    assert len(scan_dataset("neh", tree / IMAGES).items) == 42


def test_copies_within_a_class_link_their_patients_and_count_once(tree: Path) -> None:
    """B6: CNV/2 is CNV/5 again, under another number; a third patient hangs on it through one slice."""
    for index, label in enumerate(("cnv", "cnv", "normal")):
        shutil.copy(tree / IMAGES / f"CNV/2/OD/00{index}_{label}.jpg", tree / IMAGES / f"CNV/5/OD/00{index}_{label}.jpg")
    shutil.copy(tree / IMAGES / "CNV/6/OD/002_normal.jpg", tree / IMAGES / "CNV/5/OD/002_normal.jpg")
    samples = scan_dataset("neh", tree)
    assert place(samples, "CNV/2/OD/000_cnv.jpg") == place(samples, "CNV/6/OD/000_cnv.jpg") == "CNV/2=CNV/5=CNV/6"
    assert len({s.patient for s in samples.items}) == 16
    assert [s.path[-19:] for s in samples.left_out] == ["/CNV/5/OD/000_cnv.jpg"[-19:], "/CNV/5/OD/001_cnv.jpg"[-19:]]
    (linked,) = noted(samples, "OCT-W216")
    assert linked.items == ("CNV/2=CNV/5=CNV/6",)
    assert "3 patients" in linked.message
    (copies,) = noted(samples, "OCT-W218")
    assert len(copies.items) == 2
    for split in (make_split(samples, "neh", 0), *make_folds(samples, "neh", 3, 0)):
        held = {part for part, items in split.parts.items() for s in items if s.patient == "CNV/2=CNV/5=CNV/6"}
        assert len(held) == 1


def test_contradicting_labels_are_left_out_and_their_patients_stay_linked(tree: Path) -> None:
    """B6: CNV/3 = DRUSEN/4. The pixels cannot be both; what else these patients have belongs to one person."""
    shutil.copy(tree / IMAGES / "CNV/3/OD/000_cnv.jpg", tree / IMAGES / "DRUSEN/4/OD/000_drusen.jpg")
    samples = scan_dataset("neh", tree)
    paths = {s.path for s in samples.items}
    assert not {f"{IMAGES}/CNV/3/OD/000_cnv.jpg", f"{IMAGES}/DRUSEN/4/OD/000_drusen.jpg"} & paths
    assert {s.path for s in samples.left_out} == {
        f"{IMAGES}/CNV/3/OD/000_cnv.jpg",
        f"{IMAGES}/DRUSEN/4/OD/000_drusen.jpg",
    }
    (torn,) = noted(samples, "OCT-W217")
    assert "DRUSEN" in torn.items[1]
    assert place(samples, "CNV/3/OD/001_cnv.jpg") == place(samples, "DRUSEN/4/OD/001_drusen.jpg") == "CNV/3=DRUSEN/4"


def test_rows_that_stand_twice_count_once_and_are_said(tree: Path, lines: list[Line]) -> None:
    write_table(tree, [*lines, lines[0], lines[0]])
    samples = scan_dataset("neh", tree)
    assert len(samples.items) == 42
    (copies,) = noted(samples, "OCT-W218")
    assert len(copies.items) == 2
    assert "line 56" in copies.items[0]
    write_table(tree, [*lines, (*lines[0][:4], "DRUSEN", lines[0][5])])
    assert len(noted(scan_dataset("neh", tree), "OCT-W217")) == 1


def test_misaligned_rows_are_named_with_what_they_contradict(tree: Path, lines: list[Line]) -> None:
    wrong = [(7, *lines[0][1:]), (lines[1][0], lines[1][1], "OS", *lines[1][3:]), (*lines[2][:4], "DRUSEN", lines[2][5])]
    write_table(tree, [*wrong, *lines[3:]])
    (note,) = noted(scan_dataset("neh", tree), "OCT-W214")
    assert note.items == (
        "line 2: Patient ID 7, path 1", "line 3: Eye OS, path od", "line 4: Label DRUSEN, path normal"
    )  # fmt: skip


def test_labels_that_differ_in_case_and_images_without_a_row_are_said(tree: Path, lines: list[Line]) -> None:
    write_table(tree, [(*lines[0][:4], "Normal", lines[0][5]), *lines[2:]])
    samples = scan_dataset("neh", tree)
    messages = [note.message for note in noted(samples, "OCT-W214")]
    assert messages == [
        "1 rows are left out because Class and Label differ in letter case",
        "1 images are in no row of data_information.csv",
    ]
    assert len(scan_dataset("neh-all", tree).items) == 53


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((1, "CNV", "OD", 0, "oedema", "CNV/1/OD/000_cnv.jpg"), "Label 'oedema' is none of NORMAL, DRUSEN, CNV"),
        ((1, "AMD", "OD", 0, "CNV", "CNV/1/OD/000_cnv.jpg"), "Class 'AMD'"),
        (("one", "CNV", "OD", 0, "CNV", "CNV/1/OD/000_cnv.jpg"), "Patient ID 'one' is no whole number"),
        ((1, "CNV", "OD", 0, "CNV", "CNV/../../../secret.jpg"), "no path inside the data set"),
        ((1, "CNV", "OD", 0, "CNV", ""), "no path inside the data set"),
    ],
)
def test_c7_a_line_that_cannot_be_used_is_an_error_that_names_it(
    tree: Path, lines: list[Line], change: Line, said: str
) -> None:
    write_table(tree, [*lines, change])
    error = refused(tree)
    assert (error.code, error.exit_code) == ("OCT-E209", 3)
    assert f"line {len(lines) + 2}: " in str(error.place)
    assert said in str(error.place)


def test_a_table_that_is_none(tree: Path) -> None:
    table = tree / "data_information.csv"
    text = table.read_text()
    for broken, said in (
        (text.replace("Directory", "Folder", 1), "Directory"),
        (text + "1,CNV\n", "do not have 6 cells"),
        ("", "no line"),
    ):
        table.write_text(broken)
        error = refused(tree)
        assert error.code == "OCT-E209"
        assert said in error.message
    table.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused(tree).message
    table.unlink()
    assert refused(tree).code == "OCT-E230"


def test_c7_a_missing_or_broken_image_is_never_black(tree: Path) -> None:
    """A row without its file is listed by the check with everything else that cannot be read, and no training starts on it."""
    (tree / IMAGES / "CNV/1/OD/000_cnv.jpg").unlink()
    (tree / IMAGES / "CNV/2/OD/000_cnv.jpg").write_bytes(b"")
    report = audit("neh", tree)
    (found,) = [f for f in report.findings if f.code == "OCT-E201"]
    assert [item.split(" ")[0] for item in found.items] == [f"{IMAGES}/CNV/{n}/OD/000_cnv.jpg" for n in (1, 2)]
    assert "No such file" in found.items[0]
    samples = scan_dataset("neh", tree, skip_bad=True)
    assert len(samples.items) == 40
    assert len(samples.skipped) == 2


def test_a_class_without_images_is_named(tree: Path, lines: list[Line]) -> None:
    write_table(tree, [(*line[:4], "NORMAL", line[5]) if line[1] == "CNV" else line for line in lines])
    error = refused(tree)
    assert error.code == "OCT-E206"
    assert "CNV" in error.message


def test_the_check_counts_what_was_left_out_as_released(tree: Path) -> None:
    shutil.copy(tree / IMAGES / "CNV/3/OD/000_cnv.jpg", tree / IMAGES / "DRUSEN/4/OD/000_drusen.jpg")
    report = audit("neh", tree)
    assert report.findings == ()
    (few,) = [f for f in report.warnings if f.code == "OCT-W215"]
    assert few.message == "42 images, 12649 were published"
    assert {"OCT-W216", "OCT-W217"} <= {f.code for f in report.warnings}
    assert report.counts == {"all": {"NORMAL": 18, "DRUSEN": 11, "CNV": 11}}


def test_b1_the_teacher_stratifies_by_the_labels_of_other_patients(tree: Path, lines: list[Line]) -> None:
    """As released: numbers in order of first appearance, the teacher's labels in sorted order of the numbers."""
    from octc.datasets.layouts.neh import read_rows

    shuffled = [line for line in reversed(lines) if line[4] == line[1]]
    write_table(tree, [line for line in shuffled if (line[1], line[0]) in {("CNV", 6), ("DRUSEN", 2), ("NORMAL", 4)}])
    rows = read_rows(tree)
    assert patient_labels(rows, misaligned=False) == ([6, 2, 4], ["CNV", "DRUSEN", "NORMAL"])
    assert patient_labels(rows, misaligned=True) == ([6, 2, 4], ["DRUSEN", "NORMAL", "CNV"])


def test_as_released_folds_go_by_bare_number_and_hold_every_row(tmp_path: Path) -> None:
    lines = write_neh(tmp_path, patients=15, images=3)
    shutil.copy(tmp_path / IMAGES / "CNV/3/OD/000_cnv.jpg", tmp_path / IMAGES / "DRUSEN/4/OD/000_drusen.jpg")
    write_table(tmp_path, [*lines, lines[0]])
    samples = scan_dataset("neh", tmp_path)
    folds = make_splits(samples, "neh", "as-released", 5)
    teachers = make_splits(samples, "neh", "as-released-teacher", 5)
    assert [fold.fold for fold in folds] == [(i, 5) for i in range(1, 6)]
    for fold in (*folds, *teachers):
        assert sum(len(items) for items in fold.parts.values()) == len(samples.items) + 3 == 106
        numbers = [{s.path.split("/")[2] for s in items} for items in fold.parts.values()]
        assert not any(numbers[i] & numbers[j] for i, j in ((0, 1), (0, 2), (1, 2)))
        assert "LEAKY" in fold.note
    held = [s.path for fold in folds for s in fold.parts["test"]]
    assert len(held) == 106
    with pytest.raises(OctcError, match="no as-released split of neh-all"):
        make_splits(scan_dataset("neh-all", tmp_path), "neh-all", "as-released", 5)
