"""Published data sets as they are unpacked, rebuilt small: the tables of OCTDL and OLIVES, the trees of OCTID, Duke, Kaggle's
and Mendeley's archives; and trees that can be read in one way only."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from octc.core.data_options import DataOptions
from octc.core.errors import OctcError
from octc.datasets.audit import audit
from octc.datasets.base import Samples
from octc.datasets.reading import read_data
from octc.datasets.registry import guess_layout, scan_dataset
from octc.datasets.split import make_split
from tests.class_tree import of_parts, write_tree


def read(root: Path, name: str | None = None, **options: str) -> Samples:
    place = (name or guess_layout(root), root)
    return read_data(place, DataOptions(**options), root.parent / "runs", lambda text: None)


def test_octdl_names_without_ending_and_patients_of_its_table(tmp_path: Path) -> None:
    """OCTDL_labels.csv beside OCTDL/DISEASE/, file names without an ending."""
    lines = ["file_name,disease,subcategory,condition,patient_id,eye,sex,year,image_width,image_height"]
    for n in range(24):
        kind = ("AMD", "DME", "NO")[n % 3]
        write_tree(tmp_path, [f"OCTDL/{kind}/{kind.lower()}_{1000 + n}_1.jpg"])
        lines.append(f"{kind.lower()}_{1000 + n}_1,{kind},early,MNV,{n // 6 * 3 + n % 3},OD,F,{2015 + n % 4},1024,496")
    (tmp_path / "OCTDL_labels.csv").write_text("\n".join(lines) + "\n")
    samples = read(tmp_path)
    assert samples.classes == ("AMD", "DME", "NO")
    assert (len(samples.items), samples.patient_ids.patients, samples.patient_ids.state) == (24, 12, "known")
    assert all(s.sha256 for s in samples.items)
    make_split(samples, "csv", 0)
    same = read(tmp_path, "csv", column="label=disease,path=file_name,patient=PATIENT_ID")
    assert same.items == samples.items
    with pytest.raises(OctcError) as caught:
        read(tmp_path, "csv", column="label=condition")
    assert (caught.value.code, "1 classes" in caught.value.message) == ("OCT-E206", True)
    with pytest.raises(OctcError) as caught:
        read(tmp_path, "csv", column="label=diagnosis")
    assert (caught.value.code, "no column 'diagnosis'" in caught.value.message) == ("OCT-E209", True)


OLIVES = "Path (Trial/Image Type/Subject/Visit/Eye/Image Name)"


def write_olives(place: Path) -> Path:
    """The table lies in a folder of its own, its paths begin above the trial, and a biomarker is what is asked for."""
    lines = [f"{OLIVES},Scan (n/49),Atrophy / thinning of retinal layers,IRHRF,DME,Eye_ID,BCVA,CST,Patient_ID"]
    for n in range(24):
        path = f"{('Prime', 'TREX DME')[n % 2]}/OCT/{n // 2:02d}/W{n % 3}/OD/{n}.tif"
        write_tree(place / "images", [path])
        lines.append(f"/{path},{n % 49},{n % 3 == 0:d},1,{n % 2}.0,{n},80,300,{n // 2}")
    table = place / "labels" / "Biomarker_Clinical_Data_Images.csv"
    table.parent.mkdir(parents=True)
    table.write_text("\n".join(lines) + "\n")
    return table


def test_olives_a_table_beside_its_images_and_a_stated_label(tmp_path: Path) -> None:
    table = write_olives(tmp_path)
    column = "label=Atrophy / thinning of retinal layers"
    samples = read(table, "csv", column=column, image_root=str(tmp_path / "images"))
    assert samples.root == tmp_path / "images"
    assert Counter(s.label for s in samples.items) == {0: 16, 1: 8}
    assert samples.patient_ids.patients == 12
    assert {s.path for s in samples.items} >= {"Prime/OCT/00/W0/OD/0.tif", "TREX DME/OCT/11/W2/OD/23.tif"}
    with pytest.raises(OctcError) as caught:
        read(table, "csv", image_root=str(tmp_path / "images"))
    assert (caught.value.code, caught.value.hint.startswith("--column label=NAME")) == ("OCT-E209", True)


def test_absolute_paths_in_several_roots(tmp_path: Path) -> None:
    lines = ["Image;Dx;PatientID;Split"]
    for n in range(16):
        root = tmp_path / ("site a", "b/images")[n % 2]
        write_tree(root, [f"{n}.png"])
        lines.append(f"{root / str(n)}.png;{('wet', 'dry')[n // 2 % 2]};P{n // 2};{('train', 'val', 'test', 'train')[n // 4]}")
    table = tmp_path / "tables" / "all.csv"
    table.parent.mkdir()
    table.write_text("\n".join(lines) + "\n")
    with pytest.raises(OctcError) as caught:
        read(table, "csv")
    assert "--image-root" in str(caught.value.place)
    roots = f"{tmp_path / 'site a'}:{tmp_path / 'b'}"
    samples = read(table, "csv", image_root=roots)
    assert samples.root == tmp_path
    assert [s.path for s in samples.items][:2] == ["b/images/1.png", "b/images/11.png"]
    assert samples.notes == ()
    split = make_split(samples, "csv", 0)
    assert {part: {s.patient for s in items} for part, items in split.parts.items()} == {
        "train": {"P0", "P1", "P6", "P7"}, "val": {"P2", "P3"}, "test": {"P4", "P5"}
    }  # fmt: skip


def test_octid_has_classes_and_nobody(tmp_path: Path) -> None:
    names = [f"{kind}/{kind}{n}.jpeg" for kind in ("AMRD", "CSR", "DR", "MH", "NORMAL") for n in range(1, 4)]
    samples = read(write_tree(tmp_path / "OCTID", names))
    assert samples.classes == ("AMRD", "CSR", "DR", "MH", "NORMAL")
    assert samples.patient_ids.state == "unknown"


def test_duke_has_a_folder_for_each_patient(tmp_path: Path) -> None:
    kinds = ("AMD", "DME", "NORMAL")
    names = [f"{kind}{n}/TIFFs/8bitTIFFs/{i:03d}.tif" for kind in kinds for n in range(1, 16) for i in (1, 2)]
    samples = read(write_tree(tmp_path / "Duke", names))
    assert samples.classes == kinds
    assert Counter(s.label for s in samples.items) == {0: 30, 1: 30, 2: 30}
    assert (samples.patient_ids.state, samples.patient_ids.patients) == ("known", 45)
    assert {(s.label, s.patient) for s in samples.items} >= {(0, "AMD15"), (2, "NORMAL1")}
    assert [note.code for note in samples.notes] == ["OCT-W222"]
    make_split(samples, "folder", 0)


def test_a_few_numbered_folders_stay_classes_and_the_other_reading_is_offered(tmp_path: Path) -> None:
    names = [f"{kind}{n}/{i}.png" for kind in ("AMD ", "DR_") for n in (1, 2, 3) for i in range(3)]
    samples = read(write_tree(tmp_path / "grades", names))
    assert len(samples.classes) == 6
    (note,) = samples.notes
    assert (note.code, "mkdir -p" in note.hint) == ("OCT-W222", True)
    plain = read(write_tree(tmp_path / "plain", [f"grade {n}/{i}.png" for n in range(9) for i in range(3)]))
    assert (len(plain.classes), plain.notes) == (9, ())


KAGGLE = [name for part in ("train", "val", "test") for name in of_parts([part], ("CNV", "DME", "DRUSEN", "NORMAL"))]


def test_kaggles_archive_holds_its_tree_twice(tmp_path: Path) -> None:
    """kermany2018: "OCT2017 " (with the blank) in the archive, and again in a folder oct2017."""
    root = write_tree(tmp_path / "archive", [f"OCT2017 /{name}" for name in KAGGLE])
    shutil.copytree(root / "OCT2017 ", root / "oct2017" / "OCT2017 ")
    samples = read(root)
    assert samples.classes == ("CNV", "DME", "DRUSEN", "NORMAL")
    assert len(samples.items) == len(KAGGLE)
    assert [(note.code, note.items) for note in samples.notes] == [("OCT-W222", ("oct2017/",))]
    assert audit("folder", root, near="off").left_out_counts["the same tree again"] == 1
    (root / "oct2017/OCT2017 /train/CNV").rename(root / "oct2017/OCT2017 /train/OTHER")
    with pytest.raises(OctcError) as caught:  # no copy any more: which one is meant?
        read(root)
    assert (caught.value.code, "--data" in caught.value.hint) == ("OCT-E206", True)


@pytest.mark.parametrize("beside", ["again", "backup/of it"])
def test_a_tree_that_lies_in_itself_again(beside: str, tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "set", [f"{kind}/{kind}P{n}/{i}.png" for kind in ("AMD", "NO") for n in range(3) for i in range(2)]
    )
    before = read(root)
    shutil.copytree(root, tmp_path / "copy")
    (root / beside).parent.mkdir(exist_ok=True)
    (tmp_path / "copy").rename(root / beside)
    after = read(root)
    assert after.digest == before.digest
    assert [note.code for note in after.notes] == ["OCT-W222"]
    changed = root / beside / "AMD/AMDP0/0.png"
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    with pytest.raises(OctcError) as caught:
        read(root)
    assert caught.value.code == "OCT-E206"


def test_class_folders_with_equal_names_inside_are_no_copies(tmp_path: Path) -> None:
    samples = read(
        write_tree(
            tmp_path / "set", [f"{kind}/{folder}/{i}.png" for kind in ("A", "B") for folder in ("OD", "OS") for i in (0, 1)]
        )
    )
    assert (samples.classes, samples.notes) == (("A", "B"), ())


def test_a_doubled_top_folder_wherever_it_is(tmp_path: Path) -> None:
    names = [f"{kind}/{i}.png" for kind in ("AMD", "MH", "NORMAL") for i in range(3)]
    for place in ("RetinalOCT/RetinalOCT", "down/OCTID (1)/OCTID", "x/set-main/set", "x/OCTID.zip/OCTID"):
        write_tree(tmp_path / place.replace("/", "_") / place, names)
        assert read(tmp_path / place.replace("/", "_")).classes == ("AMD", "MH", "NORMAL")
    with pytest.raises(OctcError) as caught:
        read(write_tree(tmp_path / "one", [f"CNV/{name}" for name in names]))
    assert "--data" in caught.value.hint


def test_classes_in_another_letter_case_in_test_are_one(tmp_path: Path) -> None:
    names = [*of_parts(["train"], ("CNV", "Drusen", "Wet AMD")), *of_parts(["", "test"], ("cnv", "DRUSEN", "wet_amd "))[6:]]
    samples = read(write_tree(tmp_path / "set", names))
    assert samples.classes == ("CNV", "Drusen", "Wet AMD")
    assert {s.part for s in samples.items} == {"train", "test"}
    (note,) = samples.notes
    assert (note.code, note.items) == ("OCT-W222", ("DRUSEN = Drusen", "cnv = CNV", "wet_amd  = Wet AMD"))
    make_split(samples, "folder", 0)
    ucsd = write_tree(
        tmp_path / "ucsd", [f"CellData/OCT/{name}" for name in of_parts(["train", "test"], ("cnv", "Dme", "drusen", "NORMAL"))]
    )
    assert read(ucsd).classes == ("CNV", "DME", "DRUSEN", "NORMAL")


def test_classes_in_two_spellings_in_one_part_are_refused_with_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        read(write_tree(tmp_path / "set", [f"{kind}/{i}.png" for kind in ("AMD", "amd", "NO") for i in range(3)]))
    assert (caught.value.code, "mv -n" in caught.value.hint) == ("OCT-E206", True)


def test_mendeleys_archive(tmp_path: Path) -> None:
    """ZhangLabData: the OCT images beside chest X-rays, which are no data set of this kind."""
    names = [f"CellData/OCT/{name}" for name in of_parts(["train", "test"], ("CNV", "DME", "DRUSEN", "NORMAL"))]
    root = write_tree(tmp_path / "ZhangLabData", [*names, "CellData/chest_xray/train/NORMAL/IM-1.jpeg"])
    samples = read(root)
    assert (guess_layout(root), len(samples.items), samples.classes) == ("ucsd", 16, ("CNV", "DME", "DRUSEN", "NORMAL"))
    assert len(scan_dataset("folder", root / "CellData" / "OCT").items) == 16


@pytest.mark.parametrize(("people", "lacking"), [(2, 1), (1, 2)])
def test_a_class_with_too_few_patients_is_refused_at_once(people: int, lacking: int, tmp_path: Path) -> None:
    names = [
        f"{kind}/{kind}-{100 * k + p}-{i}.png" for k, kind in enumerate(("CNV", "DME")) for p in range(6) for i in range(3)
    ]
    root = write_tree(tmp_path / "set", [*names, *(f"RARE/RARE-{900 + p}-{i}.png" for p in range(people) for i in range(5))])
    samples = read(root)
    with pytest.raises(OctcError) as caught:
        make_split(samples, "folder", 0)
    assert caught.value.code == "OCT-E233"
    assert f"RARE has {people} patients" in caught.value.message
    assert "--allow-empty RARE" in caught.value.hint
    split = make_split(read(root, allow_empty="RARE"), "folder", 0)
    assert split.may_lack == ("RARE",)
    assert sum(counts["RARE"] == 0 for counts in split.counts().values()) == lacking
    with pytest.raises(OctcError) as caught:
        read(root, allow_empty="RARER")
    assert caught.value.code == "OCT-E104"


def test_two_folders_that_hold_one_class_tree(tmp_path: Path) -> None:
    write_tree(tmp_path / "set" / "one", [f"{kind}/{kind}-{p}-1.png" for kind in ("A", "B") for p in range(11, 15)])
    before = read(tmp_path / "set" / "one")
    shutil.copytree(tmp_path / "set" / "one", tmp_path / "set" / "two")
    after = read(tmp_path / "set")
    assert [(s.path.partition("/")[2], s.sha256) for s in after.items] == [(s.path, s.sha256) for s in before.items]
    assert [note.items for note in after.notes] == [("two/",)]


def test_names_that_fit_several_images_and_a_table_that_nobody_asked_for_are_named(tmp_path: Path) -> None:
    lines = ["Image Path,Label,Subject"]
    for n in range(8):
        write_tree(tmp_path / "win" / "images", [f"s{n % 2}/{n // 2}.png"])
        lines.append(f"D:\\study\\{n // 2}.png,{n % 2},{n}")
    (tmp_path / "win" / "all.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(OctcError) as caught:
        read(tmp_path / "win")
    assert "fits several images: images/s0/0.png, images/s1/0.png" in str(caught.value.place)
    (tmp_path / "win" / "all.csv").write_text("what,ever\n1,2\n")
    with pytest.raises(OctcError) as caught:
        read(tmp_path / "win")
    assert (caught.value.code, "--column path=NAME" in caught.value.hint) == ("OCT-E206", False)
    for path in sorted((tmp_path / "win" / "images").rglob("*.png")):
        path.rename(path.parent.parent / f"{path.parent.name}{path.name}")
    for folder in ("s0", "s1"):
        (tmp_path / "win" / "images" / folder).rmdir()
    with pytest.raises(OctcError) as caught:
        read(tmp_path / "win")
    assert "if all.csv names the images: octc data check" in caught.value.hint


def link_set(tmp_path: Path) -> Path:
    """A class that is a link to a folder of the store, one of hard links, and a link in the store that closes a circle."""
    write_tree(tmp_path / "store", [f"{kind}/{kind}-{p}-1.png" for kind in ("A", "B") for p in range(11, 17)])
    root = tmp_path / "set"
    (root / "B").mkdir(parents=True)
    (root / "A").symlink_to(tmp_path / "store" / "A")
    for path in (tmp_path / "store" / "B").iterdir():
        (root / "B" / path.name).hardlink_to(path)
    (tmp_path / "store" / "A" / "circle").symlink_to(root)
    return root


def test_links_are_followed_into_allowed_folders_alone(tmp_path: Path) -> None:
    root = link_set(tmp_path)
    with pytest.raises(OctcError) as caught:
        read(root)
    assert (caught.value.code, str(tmp_path / "store" / "A") in caught.value.hint) == ("OCT-E205", True)
    samples = read(root, follow_links=str(tmp_path / "store"))
    assert Counter(s.label for s in samples.items) == {0: 6, 1: 6}
    assert any(one.why == "link to a folder that is read already" for one in samples.unread)
    (tmp_path / "else").mkdir()
    (root / "B" / "away").symlink_to(tmp_path / "else")
    with pytest.raises(OctcError) as caught:
        read(root, follow_links=str(tmp_path / "store"))
    assert (caught.value.code, str(caught.value.place)) == ("OCT-E205", str(root / "B" / "away"))
    with pytest.raises(OctcError) as caught:
        read(root, follow_links=str(tmp_path / "nowhere"))
    assert caught.value.code == "OCT-E104"


def test_a_set_of_file_links_into_a_store_of_checksums(tmp_path: Path) -> None:
    """As data version control leaves it: links with endings to files without."""
    for kind in ("A", "B"):
        for n in range(3):
            write_tree(tmp_path, [f"made/{kind}{n}.png"])
            stored = tmp_path / "cache" / f"{ord(kind)}{n:030d}"
            stored.parent.mkdir(exist_ok=True)
            (tmp_path / "made" / f"{kind}{n}.png").rename(stored)
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / kind / f"{n}.png").symlink_to(stored)
    with pytest.raises(OctcError) as caught:
        read(tmp_path / "set")
    assert (caught.value.code, f"--follow-links {tmp_path / 'cache'}" in caught.value.hint) == ("OCT-E205", True)
    assert len(read(tmp_path / "set", follow_links=str(tmp_path / "cache")).items) == 6
