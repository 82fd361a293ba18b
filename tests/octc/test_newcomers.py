"""Data as newcomers have them: what is refused says what it is, and its hint works."""

from __future__ import annotations

import subprocess
import unicodedata
import zipfile
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.registry import scan_dataset
from tests.class_tree import write_tree


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
    assert "how an accent is stored" in found.message
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
    assert "AMD, DME hold 0 and 1" in found.message
    assert "t[['AMD', 'DME']].idxmax(axis=1)" in found.hint
