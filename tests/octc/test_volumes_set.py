"""The data set `volumes`: a table of volumes becomes B-scans with patients, eyes and labels, whatever the files are called."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from octc.core.errors import OctcError
from octc.datasets.audit import audit
from octc.datasets.base import Sample, Samples
from octc.datasets.pictures import content_of, read_picture, volumes_among
from octc.datasets.registry import guess_layout, scan_dataset
from octc.datasets.split import make_split, read_split
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye
from octc.store.test_set_log import log_files
from octc.volumes import read_volume
from octc.volumes.writing import Scan, opt_object, save, write_opt, write_pictures


def eye(number: int, side: str = "R", frames: int = 3, patient: str = "") -> DrawnEye:
    """Noise that nobody takes for a copy of another."""
    pixels = np.random.default_rng(number).integers(0, 255, (frames, 48, 64)).astype(np.uint8)
    return DrawnEye(pixels, side, patient or f"ID-{number}", datetime(2026, 1, 2, 3, 4), "dry")


def table(root: Path, *rows: str, header: str = "path,label,patient,eye") -> None:
    (root / "volumes.csv").write_text("\n".join([header, *rows]) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten patients, both eyes of each in one E2E, or a folder with DICOM files without endings, or two .vol files."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    rows = []
    for n in range(10):
        both = eye(2 * n, "R", patient=f"ID-{n}"), eye(2 * n + 1, "L", patient=f"ID-{n}")
        labels = ("dry", "wet") if n % 2 else ("wet", "dry")
        if n % 3 == 0:
            (folder / f"{n}.e2e").write_bytes(synthetic.e2e_bytes(both))
            rows += [f"{n}.e2e,{labels[0]},P{n},OD", f"{n}.e2e,{labels[1]},P{n},OS"]
        elif n % 3 == 1:
            (folder / f"p{n}" / "study").mkdir(parents=True)
            for k, one in enumerate(both):
                synthetic.write_dicom(one, folder / f"p{n}" / "study" / f"IM{k:05d}")
            rows += [f"p{n},{labels[0]},P{n},R", f"p{n}/study,{labels[1]},P{n},L"]
        else:
            for k, one in enumerate(both):
                (folder / f"{n}-{k}.vol").write_bytes(synthetic.vol_bytes(one))
                rows.append(f"{n}-{k}.vol,{labels[k]},P{n},")
    table(folder, *rows)
    return folder


def test_a_device_is_called_by_the_words_that_all_of_its_files_have(root: Path) -> None:
    """One maker's formats name it with its model and without: they may be one device, and are left out together."""
    samples = scan_dataset("volumes", root)
    assert {s.site for s in samples.items if s.file.endswith((".e2e", ".vol"))} == {"Heidelberg Engineering"}
    for n in (1, 4):
        for file in sorted((root / f"p{n}").rglob("IM*")):
            scan = pydicom.dcmread(file)
            scan.Manufacturer, scan.ManufacturerModelName = "HEIDELBERG Engineering", "Spectralis"
            scan.save_as(file)
    sites = {s.site for s in scan_dataset("volumes", root).items}
    assert len(sites) == 2
    assert "Heidelberg Engineering" in sites
    assert not any(site and site.endswith("Spectralis") for site in sites)


def test_where_the_table_has_sites_no_device_stands_for_one(root: Path) -> None:
    lines = (root / "volumes.csv").read_text().split()[1:]
    table(root, *(f"{line},{'Berlin' if i % 2 else ''}" for i, line in enumerate(lines)), header="path,label,patient,eye,site")
    samples = scan_dataset("volumes", root)
    assert {s.site for s in samples.items} == {"Berlin", None}
    table(root, f"{lines[0]},Berlin", f"{lines[0]},Bern", *(f"{one},Bern" for one in lines[1:]),
          header="path,label,patient,eye,site")  # fmt: skip
    assert "another patient, part, shape or site" in str(refused(root).place)


def refused(root: Path) -> OctcError:
    with pytest.raises(OctcError) as caught:
        scan_dataset("volumes", root)
    return caught.value


def test_every_b_scan_of_every_eye_is_a_sample(root: Path) -> None:
    samples = scan_dataset("volumes", root)
    assert guess_layout(root) == "volumes"
    assert samples.classes == ("dry", "wet")
    assert len(samples.items) == 60
    assert len({s.sha256 for s in samples.items}) == 60
    assert {s.patient for s in samples.items} == {f"P{n}" for n in range(10)}
    assert {s.eye for s in samples.items} == {f"P{n} {side}" for n in range(10) for side in "RL"}
    assert all(s.scan is not None and s.scan.label == s.label for s in samples.items)
    assert [len(places) for places in volumes_among(samples.items)] == [3] * 20
    assert samples.notes == ()
    for sample in samples.items:
        assert content_of(root, sample) == sample.sha256
    report = audit("volumes", root)
    assert report.findings == report.warnings == ()
    assert report.sizes == {"64x48": 60}
    assert report.leakage == "none"


def test_a_picture_of_a_sample_is_the_b_scan_as_it_is_shown(root: Path) -> None:
    samples = scan_dataset("volumes", root)
    for sample in samples.items:
        assert sample.scan is not None
        one = read_volume(root / sample.file, index=sample.scan.part)
        assert np.array_equal(np.asarray(read_picture(root, sample).image), one.frame(sample.scan.index))


def test_names_of_files_change_neither_digest_nor_split(root: Path, tmp_path: Path) -> None:
    def facts(samples: Samples) -> tuple[str, str, list[list[str]]]:
        split = make_split(samples, "volumes", 3)
        return samples.digest, split.digest, [[s.sha256 for s in split.parts[part]] for part in ("train", "val", "test")]

    before = facts(scan_dataset("volumes", root))
    other = tmp_path / "renamed"
    other.mkdir()
    lines = (root / "volumes.csv").read_text().splitlines()
    rows = []
    for line in reversed(lines[1:]):
        path, rest = line.split(",", 1)
        name = f"z{hash(path) % 1000}-{path.replace('/', '_')}"
        if (root / path).is_dir():
            shutil.copytree(root / path, other / name, dirs_exist_ok=True)
        else:
            shutil.copy(root / path, other / name)
        rows.append(f"{name},{rest}")
    table(other, *rows)
    assert facts(scan_dataset("volumes", other)) == before
    (other / "volumes.csv").write_text((other / "volumes.csv").read_text().replace(",wet,P5", ",dry,P5"))
    assert facts(scan_dataset("volumes", other))[0] != before[0]


def test_a_split_keeps_patients_apart_and_comes_back_from_its_file(root: Path, tmp_path: Path) -> None:
    split = make_split(scan_dataset("volumes", root), "volumes", 0)
    whose = [{s.patient for s in items} for items in split.parts.values()]
    assert sum(map(len, whose)) == len(set().union(*whose)) == 10
    split.write(tmp_path / "split.json")
    assert read_split(tmp_path / "split.json") == split


def test_one_scan_is_one_image_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.vol").write_bytes(synthetic.vol_bytes(eye(1)))
    one = read_volume(tmp_path / "a.vol")
    write_opt(one, tmp_path / "b.dcm")
    write_pictures(one, tmp_path / "c")
    (tmp_path / "d.vol").write_bytes(synthetic.vol_bytes(eye(2)))
    table(tmp_path, "a.vol,dry,A,", "b.dcm,dry,B,", "c,dry,C,", "d.vol,wet,D,")
    samples = scan_dataset("volumes", tmp_path)
    assert len({s.sha256 for s in samples.items}) == 6
    assert [one.code for one in audit("volumes", tmp_path).warnings] == ["OCT-W210"]


def test_black_b_scans_of_two_eyes_are_no_copies(tmp_path: Path) -> None:
    for number in (1, 2):
        one = eye(number)
        one.frames[0] = 0
        synthetic.write_dicom(one, tmp_path / f"{number}.dcm")
    table(tmp_path, "1.dcm,dry,A,", "2.dcm,wet,B,")
    samples = scan_dataset("volumes", tmp_path)
    assert len({s.sha256 for s in samples.items}) == 6
    assert all(content_of(tmp_path, s) == s.sha256 for s in samples.items)


def labels(samples: Samples) -> list[tuple[str, int, int | None]]:
    return sorted((s.file, s.label, None if s.scan is None else s.scan.label) for s in samples.items)


def test_rows_with_a_frame_label_b_scans(tmp_path: Path) -> None:
    for number in range(4):
        synthetic.write_dicom(eye(number), tmp_path / f"{number}.dcm")
    rows = [
        *(f"0.dcm,{label},A,{frame}" for frame, label in enumerate(("dry", "wet", "dry"))), "0.dcm,wet,A,",
        *(f"1.dcm,dry,B,{frame}" for frame in range(3)),
        "2.dcm,wet,C,1",
        *(f"3.dcm,{label},D,{frame}" for frame, label in enumerate(("dry", "wet", "dry"))),
    ]  # fmt: skip
    table(tmp_path, *rows, header="path,label,patient,frame")
    samples = scan_dataset("volumes", tmp_path)
    assert labels(samples) == sorted(
        [
            *[("0.dcm", 0, 1), ("0.dcm", 1, 1), ("0.dcm", 0, 1)],
            *[("1.dcm", 0, 0)] * 3,
            ("2.dcm", 1, None),
            *[("3.dcm", 0, None), ("3.dcm", 1, None), ("3.dcm", 0, None)],
        ],
        key=lambda row: (row[0], row[1], row[2] or 0),
    )
    assert [note.code for note in samples.notes] == ["OCT-W214"]


def test_whole_numbers_may_be_written_as_a_column_with_gaps_is(tmp_path: Path) -> None:
    """pandas and Excel write 1.0 where a cell of the column is empty."""
    (tmp_path / "both.e2e").write_bytes(synthetic.e2e_bytes([eye(1, "R"), eye(2, "L")]))
    (tmp_path / "one.vol").write_bytes(synthetic.vol_bytes(eye(3)))
    plain = ["both.e2e,dry,A,0,", "both.e2e,wet,A,1,", "one.vol,dry,B,,0", "one.vol,wet,B,,2"]
    table(tmp_path, *plain, header="path,label,patient,volume,frame")
    wanted = scan_dataset("volumes", tmp_path)
    gaps = ["both.e2e,dry,A,0.0,", "both.e2e,wet,A,1.0,", "one.vol,dry,B,,0.0", "one.vol,wet,B,,2.00"]
    table(tmp_path, *gaps, header="path,label,patient,volume,frame")
    found = scan_dataset("volumes", tmp_path)
    assert found.items == wanted.items
    assert len(found.items) == 8


def test_cells_that_say_nothing_are_empty_ones(tmp_path: Path) -> None:
    """R writes NA, and a spreadsheet program #N/A."""
    for n in (1, 2):
        (tmp_path / f"{n}.vol").write_bytes(synthetic.vol_bytes(eye(n)))
    header = "path,label,patient,volume,eye,frame,part,shape"
    table(tmp_path, "1.vol,dry,A,,,,,", "2.vol,wet,B,,,,,", header=header)
    wanted = scan_dataset("volumes", tmp_path)
    table(tmp_path, "1.vol,dry,A,NA,unknown,NA,NA,NA", "2.vol,wet,B,#N/A,NA,-,n/a,NaN", header=header)
    assert scan_dataset("volumes", tmp_path).items == wanted.items


@pytest.mark.parametrize(
    ("rows", "header", "why"),
    [
        (["both.e2e,dry,A,", "one.vol,wet,B,"], "path,label,patient,eye", "holds 2 volumes"),
        (["both.e2e,dry,A,7", "one.vol,wet,B,"], "path,label,patient,volume", "has no volume 7"),
        (["one.vol,dry,A,L", "both.e2e,wet,B,R"], "path,label,patient,eye", "holds no volume of the L eye"),
        (["one.vol,dry,A,both", "both.e2e,wet,B,R"], "path,label,patient,eye", "neither R nor L"),
        (["one.vol,dry,A,9", "one.vol,wet,A,0"], "path,label,patient,frame", "has no frame 9"),
        (["one.vol,dry,A,x", "one.vol,wet,A,0"], "path,label,patient,frame", "no whole number"),
        (["one.vol,dry,A,1.0", "one.vol,wet,A,1.5"], "path,label,patient,frame", "line 3: frame '1.5' is no whole number"),
        (["one.vol,dry,A,1.000", "one.vol,wet,A,0"], "path,label,patient,frame", "line 2: frame '1.000'"),
        (["one.vol,dry,A,-1.0", "one.vol,wet,A,0"], "path,label,patient,frame", "line 2: frame '-1.0'"),
        (["both.e2e,dry,A,0.5", "one.vol,wet,B,"], "path,label,patient,volume", "line 2: volume '0.5'"),
        (["one.vol,dry,A,0", "one.vol,wet,A,0"], "path,label,patient,frame", "stood above with another label"),
        (["one.vol,dry,A,R", "one.vol,wet,A,R"], "path,label,patient,eye", "stood above"),
        (["one.vol,dry,A,R", "one.vol,dry,B,R", "both.e2e,wet,C,L"], "path,label,patient,eye", "another patient"),
        (["../one.vol,dry,A,R", "both.e2e,wet,C,L"], "path,label,patient,eye", "no path below"),
        (["empty,dry,A,R", "both.e2e,wet,C,L"], "path,label,patient,eye", "a folder without a volume"),
        (["one.vol,dry,A,3x4", "both.e2e,wet,C,"], "path,label,patient,shape", "FRAMESxROWSxCOLUMNS"),
    ],
)
def test_lines_that_cannot_be_understood_are_named(tmp_path: Path, rows: list[str], header: str, why: str) -> None:
    (tmp_path / "both.e2e").write_bytes(synthetic.e2e_bytes([eye(1, "R"), eye(2, "L")]))
    (tmp_path / "one.vol").write_bytes(synthetic.vol_bytes(eye(3, "R")))
    (tmp_path / "empty").mkdir()
    table(tmp_path, *rows, header=header)
    error = refused(tmp_path)
    assert error.code == "OCT-E209"
    assert error.place is not None
    assert why in error.place


def test_a_volume_that_cannot_be_read_is_named_by_the_check_and_left_out_on_request(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.vol").write_bytes(synthetic.vol_bytes(eye(number)))
    data = (tmp_path / "3.vol").read_bytes()
    (tmp_path / "3.vol").write_bytes(data[: len(data) - 10])
    (tmp_path / "4.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    table(tmp_path, *(f"{n}.vol,{('dry', 'wet')[n % 2]},P{n}," for n in range(4)), "4.dcm,dry,P4,", "5.dcm,dry,P5,")
    found = {one.code: one.items for one in audit("volumes", tmp_path).findings}
    assert {code: len(items) for code, items in found.items()} == {"OCT-E226": 1, "OCT-E220": 1, "OCT-E201": 1}
    assert "3.vol" in found["OCT-E226"][0]
    samples = scan_dataset("volumes", tmp_path, skip_bad=True)
    assert len(samples.items) == 9
    assert sorted(path for path, _ in samples.skipped) == ["3.vol", "4.dcm", "5.dcm"]


def test_parts_of_a_concatenation_are_one_volume_whichever_is_named(tmp_path: Path) -> None:
    one = eye(1, frames=4)
    folder = tmp_path / "dicom"
    folder.mkdir()
    for part in range(2):
        scan = Scan(frames=list(one.frames[2 * part : 2 * part + 2]), laterality="R", spacing=one.spacing, seed=f"part {part}")
        made = opt_object(scan)
        made.ConcatenationUID, made.InConcatenationNumber, made.InConcatenationTotalNumber = "1.2.3", part + 1, 2
        made.ConcatenationFrameOffsetNumber = 2 * part
        for index, group in enumerate(made.PerFrameFunctionalGroupsSequence):
            group.FrameContentSequence[0].InStackPositionNumber = 2 * part + index + 1
        save(made, folder / f"part{part}")
    (tmp_path / "b.vol").write_bytes(synthetic.vol_bytes(eye(2)))
    table(tmp_path, "dicom,dry,A,R", "b.vol,wet,B,")
    whole = scan_dataset("volumes", tmp_path)
    assert [s.scan.frames for s in whole.items if s.patient == "A" and s.scan is not None] == [4] * 4
    table(tmp_path, "dicom/part0,dry,A,R", "dicom/part1,dry,A,R", "b.vol,wet,B,")
    assert scan_dataset("volumes", tmp_path).items == whole.items


def test_ids_in_the_files_group_volumes_and_go_no_further(tmp_path: Path) -> None:
    for number, whose in enumerate(("SECRET-1", "SECRET-1", "SECRET-2", "SECRET-3")):
        synthetic.write_dicom(eye(number, patient=whose), tmp_path / f"{number}.dcm")
    table(tmp_path, "0.dcm,dry,,", "1.dcm,wet,,", "2.dcm,dry,,", "3.dcm,wet,Q,")
    samples = scan_dataset("volumes", tmp_path)
    whose = {s.file: s.patient for s in samples.items}
    assert whose["0.dcm"] == whose["1.dcm"] != whose["2.dcm"]
    assert whose["3.dcm"] == "Q"
    assert samples.patient_ids.state == "known"
    assert "SECRET" not in repr(samples)
    table(tmp_path, "0.dcm,dry,A,", "1.dcm,wet,B,", "2.dcm,dry,,", "3.dcm,wet,Q,")
    assert [one.code for one in scan_dataset("volumes", tmp_path).notes] == ["OCT-W221"]


def test_a_file_without_a_header_takes_shape_and_eye_of_the_table(tmp_path: Path) -> None:
    one = eye(1)
    (tmp_path / "a.img").write_bytes(synthetic.img_bytes(one))
    (tmp_path / "b.vol").write_bytes(synthetic.vol_bytes(eye(2)))
    table(tmp_path, "a.img,dry,A,L,3x48x64", "b.vol,wet,B,R,", header="path,label,patient,eye,shape")
    samples = scan_dataset("volumes", tmp_path)
    mine = sorted((s for s in samples.items if s.file == "a.img"), key=lambda s: s.path)
    assert {s.eye for s in mine} == {"A L"}
    assert all(np.array_equal(np.asarray(read_picture(tmp_path, s).image), one.frames[k]) for k, s in enumerate(mine))
    table(tmp_path, "a.img,dry,A,L,", "b.vol,wet,B,R,", header="path,label,patient,eye,shape")
    assert [one.code for one in audit("volumes", tmp_path).findings] == ["OCT-E225"]
    table(tmp_path, "a.img,dry,A,L,3x48x64", "a.img,dry,A,L,", "b.vol,wet,B,R,", header="path,label,patient,eye,shape")
    with pytest.raises(OctcError, match="1 lines of the table cannot be used") as caught:
        scan_dataset("volumes", tmp_path)
    assert (caught.value.code, "another patient, part, shape or site" in str(caught.value.place)) == ("OCT-E209", True)


def test_files_that_no_row_names_are_said(root: Path) -> None:
    synthetic.write_dicom(eye(99), root / "stray")
    (root / "notes.txt").write_text("a text")
    samples = scan_dataset("volumes", root)
    assert [(note.code, note.items) for note in samples.notes] == [("OCT-W214", ("stray",))]
    assert {one.path for one in samples.unread} == {"stray", "notes.txt", "volumes.csv"} - {"volumes.csv"}


def test_predicting_a_test_volume_is_a_reading_of_the_test_set(root: Path, tmp_path: Path) -> None:
    split = make_split(scan_dataset("volumes", root), "volumes", 0)
    run = tmp_path / "r-1"
    run.mkdir()
    split.write(run / "split.json")
    files = sorted({s.file for s in split.parts["test"]})
    expected = len([s for s in split.parts["test"] if s.file == files[0]])
    assert log_files(run, [root / files[0]], {"a": "b"}, "predict", "2026-01-01T00:00:00Z", named=True) == expected
    others = sorted({s.file for s in split.parts["train"]} - set(files))
    assert log_files(run, [root / others[0]], {"a": "b"}, "predict", "2026-01-01T00:00:00Z") == 0


def test_a_file_with_fewer_b_scans_than_when_it_was_listed_is_damaged(root: Path) -> None:
    sample: Sample = next(s for s in scan_dataset("volumes", root).items if s.file.endswith(".vol"))
    assert sample.scan is not None
    with pytest.raises(OctcError) as caught:
        read_picture(root, replace(sample, scan=replace(sample.scan, index=50)))
    assert caught.value.code == "OCT-E222"
