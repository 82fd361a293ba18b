"""`octc data ...` as processes: exit codes, streams, JSON, and every fault of a data set as its user meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.datasets.synthetic.bscans import draw_phantom, write_phantoms

Octc = Callable[..., "subprocess.CompletedProcess[str]"]
HERE = True  # commands in this process (tests/conftest.py)
OCT = Path("CellData/OCT")
SIZE = (256, 248)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "phantom"
    write_phantoms(root, 4, 4, 0, size=SIZE)
    return root


@pytest.fixture
def tree(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "tree"))


def first(tree: Path, part: str, kind: str) -> Path:
    return sorted((tree / OCT / part / kind).iterdir())[0]


def cut(tree: Path) -> None:
    data = first(tree, "train", "CNV").read_bytes()
    (tree / OCT / "train/CNV/CNV-9-1.jpeg").write_bytes(data[: len(data) * 9 // 10])


def write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda tree: ((tree / OCT / "train/CNV" / name).write_bytes(data) and None) or None


def save(name: str, *pictures: Image.Image, kind: str | None = None) -> Callable[[Path], None]:
    def put(tree: Path) -> None:
        more = {"save_all": True, "append_images": list(pictures[1:])} if len(pictures) > 1 else {}
        pictures[0].save(tree / OCT / "train/CNV" / name, kind, **more)

    return put


def copy_to(part: str, kind: str) -> Callable[[Path], None]:
    return lambda tree: shutil.copy(first(tree, "test", "CNV"), tree / OCT / part / kind / f"{kind}-9-1.jpeg") and None


def near(tree: Path) -> None:
    Image.open(first(tree, "test", "CNV")).save(tree / OCT / "train/CNV/CNV-9-1.jpeg", quality=50)


def patient(tree: Path) -> None:
    number = first(tree, "test", "CNV").name.split("-")[1]
    draw_phantom("CNV", 55, 1, SIZE).save(tree / OCT / f"train/CNV/CNV-{number}-7.jpeg")


def odd_names(tree: Path) -> None:
    for number, name in enumerate(("眼 底", "a\nb", "n" * 240, "case", "CASE")):
        draw_phantom("CNV", 200 + number, 0, SIZE).save(tree / OCT / "train/CNV" / f"CNV-8{number}-1{name}.png")


def outside(tree: Path) -> None:
    draw_phantom("CNV", 55, 1, SIZE).save(tree.parent / "outside.png")
    (tree / OCT / "train/CNV/CNV-9-1.png").symlink_to(tree.parent / "outside.png")


def loop(tree: Path) -> None:
    (tree / OCT / "train/CNV/again").symlink_to(tree, target_is_directory=True)


def empty_class(tree: Path) -> None:
    shutil.rmtree(tree / OCT / "train/DME")
    (tree / OCT / "train/DME").mkdir()


SCAN = draw_phantom("CNV", 56, 1, SIZE)
DEEP = Image.fromarray(np.asarray(SCAN).astype(np.uint16) * 257)
FAULTS: dict[str, tuple[Callable[[Path], object], int, str, str]] = {
    "d01_zero_bytes": (write("CNV-9-1.jpeg", b""), 3, "OCT-E201", "CNV-9-1.jpeg"),
    "d02_cut_off": (cut, 3, "OCT-E201", "CNV-9-1.jpeg"),
    "d03_png_named_jpg": (save("CNV-9-1.jpg", SCAN, kind="PNG"), 0, "OCT-W201", "CNV-9-1.jpg"),
    "d04_html": (write("CNV-9-1.jpeg", b"<html>404</html>"), 3, "OCT-E202", "not an image"),
    "d07_16_bit": (save("CNV-9-1.png", DEEP), 0, "OCT-W208", "scaled"),
    "d08_rgba": (save("CNV-9-1.png", SCAN.convert("RGBA")), 0, "OCT-W208", "CNV-9-1.png"),
    "d10_one_pixel": (save("CNV-9-1.png", Image.new("L", (1, 1))), 3, "OCT-E208", "1 x 1 px"),
    "d11_black": (save("CNV-9-1.png", Image.new("L", SIZE)), 0, "OCT-W211", "constant"),
    "d13_frames": (save("CNV-9-1.tif", SCAN, Image.new("L", SIZE, 7)), 3, "OCT-E204", "2 frames"),
    "d14_names": (odd_names, 0, "✓ nothing found", "nothing found"),
    "d16_outside": (outside, 3, "OCT-E205", "CNV-9-1.png"),
    "d16_loop": (loop, 0, "nothing found", "nothing found"),
    "d18_empty_class": (empty_class, 3, "OCT-E206", "DME"),
    "d19_missing_class": (
        lambda t: shutil.rmtree(t / OCT / "test/DME"),
        3,
        "OCT-E206",
        "expected CNV, DME, DRUSEN, NORMAL; found",
    ),
    "d20_not_in_train": (lambda t: shutil.rmtree(t / OCT / "train/DME"), 3, "OCT-E207", "DME"),
    "d21_same_bytes": (copy_to("train", "CNV"), 1, "OCT-E210", "CNV-9-1.jpeg"),
    "d22_near": (near, 1, "OCT-E211", "CNV-9-1.jpeg"),
    "d23_patient": (patient, 1, "OCT-E212", "1 patients"),
    "conflict": (copy_to("test", "DME"), 1, "OCT-E213", "DME-9-1.jpeg"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_fault_ends_with_its_code_and_names_it(fault: str, tree: Path, octc: Octc) -> None:
    inject, code, said, named = FAULTS[fault]
    inject(tree)
    done = octc("data", "check", tree)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert named in done.stderr
    if code:
        assert "help:" in done.stderr
    assert "Traceback" not in done.stderr


def test_d22_warn_lets_it_pass(tree: Path, octc: Octc) -> None:
    near(tree)
    done = octc("data", "check", tree, "--near-duplicates", "warn")
    assert done.returncode == 0
    assert "warning[OCT-W213]" in done.stderr
    assert octc("data", "check", tree, "--near-duplicates", "off").stderr.count("OCT-W213") == 0


def test_d26_expect_published(tree: Path, octc: Octc) -> None:
    (tree / "phantom.json").unlink()
    assert octc("data", "check", tree).returncode == 0
    done = octc("data", "check", tree, "--expect", "published")
    assert done.returncode == 1
    assert "error[OCT-E215]" in done.stderr
    assert "expected 37206, found 3" in done.stderr


def test_findings_and_unreadable_files_are_both_listed_and_end_with_3(tree: Path, octc: Octc) -> None:
    write("CNV-8-1.jpeg", b"")(tree)
    copy_to("train", "CNV")(tree)
    done = octc("data", "check", tree, "--json")
    assert done.returncode == 3
    value = json.loads(done.stdout)
    assert {f["code"] for f in value["data"]["findings"]} == {"OCT-E201", "OCT-E210"}
    assert value["error"]["code"] == "OCT-E201"
    assert value["status"] == "error"


def test_json_of_a_clean_set(tree: Path, octc: Octc) -> None:
    done = octc("data", "check", "phantom", "--data", tree, "--json", "--quiet")
    assert done.returncode == 0
    assert done.stderr == ""
    value = json.loads(done.stdout)
    assert value["data"]["counts"]["train"]["CNV"] == 3
    assert value["data"]["findings"] == []


def test_absent_set_and_unknown_name(octc: Octc) -> None:
    done = octc("data", "check")
    assert done.returncode == 3
    assert "OCT-E230" in done.stderr
    done = octc("data", "check", "usdc")
    assert done.returncode == 2
    assert "ucsd" in done.stderr


def test_phantoms_are_drawn_listed_split_and_checked(tmp_path: Path, octc: Octc) -> None:
    drawn = octc("data", "phantom", "--images", "6", "--patients", "4", "--seed", "3")
    assert drawn.returncode == 0, drawn.stderr
    assert "24 images of 16 synthetic patients" in drawn.stdout
    assert (tmp_path / "Dataset/phantom/CellData/OCT/train/CNV").is_dir()
    assert octc("data", "phantom", "--images", "6").returncode == 2
    assert octc("data", "phantom", "--images", "6", "--force").returncode == 0
    listed = json.loads(octc("data", "list", "--json").stdout)["data"]["datasets"]
    assert listed["phantom"]["root"]
    assert listed["ucsd"]["root"] is None
    split = octc("split", "phantom", "--json")
    value = json.loads(split.stdout)["data"]
    assert sum(value["counts"]["val"].values()) > 0
    assert len(value["digest"]) == 64
    assert octc("data", "check", "phantom").returncode == 0


@pytest.mark.slow  # the audit itself: tests/octc/test_audit.py
def test_real_subset_passes(ucsd: Path, octc: Octc) -> None:
    done = octc("data", "check", "ucsd", "--data", ucsd)
    assert done.returncode == 0, done.stderr
    assert "862" not in done.stderr
    assert "error[" not in done.stderr
