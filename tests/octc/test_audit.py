"""`audit` finds what was put there, lists it, and finds nothing in what is clean."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.datasets.audit import AuditReport, Finding, audit
from octc.datasets.near_duplicates import MOST, near_pairs, signs_of
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom, write_phantoms

OCT = Path("CellData/OCT")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "phantom"
    write_phantoms(root, 4, 4, 0, size=(256, 248))
    return root


@pytest.fixture
def tree(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "tree"))


def first(tree: Path, part: str, kind: str) -> Path:
    return sorted((tree / OCT / part / kind).iterdir())[0]


def one(report: AuditReport, code: str) -> Finding:
    (found,) = [f for f in (*report.findings, *report.warnings) if f.code == code]
    return found


def test_clean_set_has_no_finding(tree: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = audit("phantom", tree, read=lambda done, total: seen.append((done, total)))
    assert report.findings == report.warnings == ()
    assert report.counts == {"train": dict.fromkeys(CLASSES, 3), "test": dict.fromkeys(CLASSES, 1)}
    assert report.patients == report.counts
    assert report.sizes == {"256x248": 16}
    assert report.modes == {"L": 16}
    assert report.others == ("phantom.json",)
    assert seen[-1] == (16, 16)


def test_d01_d02_d04_d10_d13_unreadable_files_are_all_listed_with_their_cause(tree: Path) -> None:
    folder = tree / OCT / "train/CNV"
    good = first(tree, "train", "CNV")
    data = good.read_bytes()
    (folder / "CNV-90-1.jpeg").write_bytes(b"")
    (folder / "CNV-90-2.jpeg").write_bytes(data[: len(data) * 9 // 10])
    (folder / "CNV-90-3.jpeg").write_text("<html>not found</html>")
    Image.new("L", (1, 1)).save(folder / "CNV-90-4.png")
    Image.new("L", (3, 4000)).save(folder / "CNV-90-5.png")
    Image.open(good).save(folder / "CNV-90-6.tiff", save_all=True, append_images=[Image.new("L", (256, 248), 9)])
    report = audit("phantom", tree)
    listed = {f.code: f.items for f in report.findings}
    assert sorted(listed) == ["OCT-E201", "OCT-E202", "OCT-E204", "OCT-E208"]
    assert [item.split(" ")[0][-13:] for item in listed["OCT-E201"]] == ["CNV-90-1.jpeg", "CNV-90-2.jpeg"]
    assert ["1 x 1 px" in listed["OCT-E208"][0], "3 x 4000 px" in listed["OCT-E208"][1]] == [True, True]
    assert all(f.error().exit_code == 3 for f in report.findings)
    assert report.counts["train"]["CNV"] == 9  # what lies there; nothing else is said of the bad ones


def test_d01_empty_files_are_not_called_copies_of_each_other(tree: Path) -> None:
    for part, kind in (("train", "CNV"), ("test", "DME")):
        (tree / OCT / part / kind / f"{kind}-9{len(part)}-1.jpeg").write_bytes(b"")
    assert {f.code for f in audit("phantom", tree).findings} == {"OCT-E201"}


def test_d03_d07_d08_d11_are_warnings(tree: Path) -> None:
    folder = tree / OCT / "train/DME"
    scan = draw_phantom("DME", 77, 0, (256, 248))
    scan.save(folder / "DME-91-1.jpg", "PNG")
    Image.fromarray(np.asarray(draw_phantom("DME", 78, 0, (256, 248))).astype(np.uint16) * 257).save(folder / "DME-91-2.png")
    draw_phantom("DME", 79, 0, (256, 248)).convert("RGBA").save(folder / "DME-91-3.png")
    Image.new("L", (256, 248)).save(folder / "DME-91-4.png")
    Image.new("L", (256, 248), 128).save(folder / "DME-91-5.png")
    report = audit("phantom", tree)
    assert report.findings == ()
    assert {f.code: len(f.items) for f in report.warnings} == {"OCT-W201": 1, "OCT-W208": 2, "OCT-W211": 2}


def test_d21_same_bytes_in_train_and_test_lists_the_pair(tree: Path) -> None:
    source = first(tree, "test", "CNV")
    shutil.copy(source, tree / OCT / "train/CNV/CNV-92-1.jpeg")
    found = one(audit("phantom", tree), "OCT-E210")
    assert found.error().exit_code == 1
    assert found.items == (f"{OCT}/test/CNV/{source.name} = {OCT}/train/CNV/CNV-92-1.jpeg",)


def test_copies_within_a_part_are_a_warning_that_counts_patients(tree: Path) -> None:
    shutil.copy(first(tree, "train", "CNV"), tree / OCT / "train/CNV/CNV-92-1.jpeg")
    report = audit("phantom", tree)
    assert report.findings == ()
    assert "1 of them with two patients" in one(report, "OCT-W210").message


def test_same_bytes_under_two_classes_are_a_conflict(tree: Path) -> None:
    shutil.copy(first(tree, "train", "CNV"), tree / OCT / "train/DME/DME-93-1.jpeg")
    report = audit("phantom", tree)
    assert [f.code for f in report.findings] == ["OCT-E213"]
    assert "(CNV)" in report.findings[0].items[0]
    assert "(DME)" in report.findings[0].items[0]


@pytest.mark.parametrize("number", [93, None], ids=["of another patient", "of the same patient"])
def test_one_scan_encoded_again_under_another_class_is_named(tree: Path, number: int | None) -> None:
    source = first(tree, "train", "CNV")
    copy = source.parent.parent / "DME" / f"DME-{number or source.name.split('-')[1]}-77.jpeg"
    Image.open(source).save(copy, quality=60)
    named = [w for w in audit("phantom", tree, near="warn").warnings if "under two classes" in w.message]
    assert [(w.code, len(w.items)) for w in named] == [("OCT-W213", 1)]
    assert all(word in named[0].items[0] for word in (f"{source.name} (CNV)", f"{copy.name} (DME)"))
    assert not [w for w in audit("phantom", tree, near="off").warnings if "under two classes" in w.message]


@pytest.mark.parametrize("how", ["quality", "half", "brightness", "png", "png of 16 bits"])
def test_d22_re_encoded_image_on_both_sides(tree: Path, how: str) -> None:
    source = first(tree, "test", "DRUSEN")
    picture = Image.open(source)
    changed = {
        "quality": lambda: picture,
        "half": lambda: picture.resize((128, 124)),
        "brightness": lambda: picture.point(lambda v: min(255, int(1.15 * v))),
        "png": lambda: picture,
        "png of 16 bits": lambda: Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257),
    }[how]()
    path = tree / OCT / "train/DRUSEN" / ("DRUSEN-94-1.png" if "png" in how else "DRUSEN-94-1.jpeg")
    changed.save(path, **({} if "png" in how else {"quality": 60}))
    found = one(audit("phantom", tree), "OCT-E211")
    assert found.error().exit_code == 1
    assert len(found.items) == 1
    assert path.name in found.items[0]
    assert source.name in found.items[0]
    warned = audit("phantom", tree, near="warn")
    assert warned.findings == ()
    assert one(warned, "OCT-W213").items == found.items
    codes = {warning.code for warning in audit("phantom", tree, near="off").warnings}
    assert codes == ({"OCT-W208"} if "16" in how else set())


def test_d22_without_official_parts_images_of_one_patient_may_look_alike(tmp_path: Path) -> None:
    for kind in ("dry", "wet"):
        (tmp_path / kind).mkdir()
        for patient in range(2):
            picture = draw_phantom("DRUSEN", 10 * patient + len(kind) + (kind == "wet"), 0, (256, 248))
            picture.save(tmp_path / kind / f"{kind}-{patient}{len(kind) + (kind == 'wet')}-1.png")
            picture.save(tmp_path / kind / f"{kind}-{patient}{len(kind) + (kind == 'wet')}-2.jpeg", quality=70)
    assert audit("folder", tmp_path).findings == ()
    again = Image.open(next((tmp_path / "dry").glob("*.png")))
    again.save(tmp_path / "dry" / "dry-99-1.jpeg", quality=50)
    found = one(audit("folder", tmp_path), "OCT-E211")
    assert all("dry-99-1.jpeg" in item for item in found.items)


def test_d23_patient_on_both_sides_is_listed(tree: Path) -> None:
    moved = first(tree, "test", "NORMAL")
    patient = moved.name.split("-")[1]
    draw_phantom("CNV", 123, 0, (256, 248)).save(tree / OCT / f"train/CNV/CNV-{patient}-8.jpeg")
    found = one(audit("phantom", tree), "OCT-E212")
    assert found.items == (patient,)
    assert found.error().exit_code == 1


def test_d26_counts_unlike_the_published_ones(tree: Path) -> None:
    report = audit("ucsd", tree)
    assert report.findings == ()
    assert "train/CNV: expected 37206, found 3" in one(report, "OCT-W215").items
    strict = audit("ucsd", tree, expect="published")
    assert one(strict, "OCT-E215").error().exit_code == 1
    for number in range(250):
        Image.new("L", (32, 32), number).save(tree / OCT / f"test/CNV/CNV-{700 + number}-1.png")
    more = one(audit("ucsd", tree), "OCT-E215")
    assert "test/CNV: expected 250, found 251" in more.items


def test_names_without_patients_are_said(tmp_path: Path) -> None:
    for kind in ("dry", "wet"):
        (tmp_path / kind).mkdir()
        draw_phantom("CNV", len(kind), ord(kind[0]), (256, 248)).save(tmp_path / kind / "scan.png")
    report = audit("folder", tmp_path)
    assert report.counts == {"all": {"dry": 1, "wet": 1}}
    assert len(one(report, "OCT-W212").items) == 2


def test_white_borders_are_counted_by_class(tree: Path) -> None:
    for path in (tree / OCT / "train/CNV").iterdir():
        pixels = np.array(Image.open(path))
        pixels[:30] = 255
        Image.fromarray(pixels).save(path)
    assert audit("phantom", tree).white["CNV"] >= 0.75


@pytest.mark.parametrize("options", [{"near": "maybe"}, {"expect": "all"}])
def test_unknown_options_are_refused(tree: Path, options: dict[str, str]) -> None:
    with pytest.raises(OctcError) as caught:
        audit("phantom", tree, **options)
    assert caught.value.code == "OCT-E104"


def test_report_is_plain_json(tree: Path) -> None:
    shutil.copy(first(tree, "test", "CNV"), tree / OCT / "train/CNV/CNV-92-1.jpeg")
    value = audit("phantom", tree).to_json()
    assert value["findings"][0]["code"] == "OCT-E210"
    assert value["counts"]["test"]["CNV"] == 1


def test_long_lists_are_shortened_in_words_and_whole_in_json(tree: Path) -> None:
    for number in range(14):
        (tree / OCT / f"train/CNV/CNV-9{number}-1.jpeg").write_bytes(b"")
    found = one(audit("phantom", tree), "OCT-E201")
    assert len(found.items) == 14
    assert "and 4 more" in str(found.error().place)


def test_near_pairs_within_and_across() -> None:
    rng = np.random.default_rng(0)
    bits = [rng.random(255) < 0.5 for _ in range(1500)]
    twin = bits[1200].copy()
    twin[:MOST] ^= True
    assert near_pairs(bits, [twin]) == [(1200, 0, MOST)]
    twin[MOST] ^= True
    assert near_pairs(bits, [twin]) == []
    both = [*bits, bits[7]]
    assert near_pairs(both) == [(7, 1500, 0)]
    assert near_pairs(both, groups=[0 if i in {7, 1500} else i + 1 for i in range(1501)]) == []
    assert near_pairs([]) == near_pairs(bits, []) == []


def test_flat_pictures_have_no_signs() -> None:
    assert signs_of(Image.new("L", (64, 64), 30)) is None


def test_real_subset_passes(ucsd: Path) -> None:
    """D22's threshold was chosen on it: no pair of train and test is within 32 signs, re-encodings of its images are."""
    report = audit("ucsd", ucsd)
    assert report.findings == ()
    assert [f.code for f in report.warnings] == ["OCT-W215"]
    assert report.release.startswith("v3 (a subset; most are 1024x496")
    assert 0.7 < min(report.white.values()) < max(report.white.values()) < 0.95
    paths = sorted(ucsd.rglob("*.jpeg"))[::40]
    pictures = [Image.open(path).convert("L") for path in paths]
    for picture in pictures:
        stream = io.BytesIO()
        picture.resize((picture.width // 2, picture.height // 2)).save(stream, "JPEG", quality=40)
        assert len(near_pairs([signs_of(picture)], [signs_of(Image.open(stream).convert("L"))])) == 1
    assert len(near_pairs([signs_of(picture) for picture in pictures])) == 0
