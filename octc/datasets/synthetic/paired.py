"""Synthetic OCT and fundus images of the same eyes, with labels that do not exclude each other, in the layout of TOPCON-MM.

An eye has findings, each with a severity; both modalities draw the same ones, each as it sees them: fluid shows in OCT,
bleeding in the fundus. They look roughly like images of eyes, and say nothing about patients.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import publishing, write_json
from octc.datasets.layouts.folders import PHANTOM_MARK
from octc.datasets.layouts.topcon import LISTS
from octc.datasets.synthetic.bscans import TEST_SHARE, draw_scan
from octc.datasets.synthetic.fundus import draw_fundus
from octc.datasets.synthetic.retina import DISEASES, Array, Eye, Findings

CLASSES = (
    "NOR",
    "DRU",
    "CNV",
    "EDE",
    "HEM",
    "MEM",
)  # normal, drusen, neovascular lesion, oedema, bleeding, epiretinal membrane
SHARES = (0.30, 0.18, 0.30, 0.30, 0.28)  # of the eyes that are not normal: chance of each finding behind the first
NORMAL_SHARE = 0.25
SIZE = 256  # pixels, both modalities
SIDES = ("OD", "OS")
FOLDERS = {"fundus": "fundus_images", "oct": "oct_images"}
KINDS = {"DRU": "DRUSEN", "CNV": "CNV", "EDE": "DME"}  # what phantom_eye calls them


def draw_labels(rng: np.random.Generator) -> dict[str, float]:
    """Findings of one eye with their severities in (0, 1); {} is a normal eye."""
    if rng.random() < NORMAL_SHARE:
        return {}
    while True:
        present = rng.random(len(SHARES)) < SHARES
        severities = rng.beta(1.6, 1.4, len(SHARES))
        if present.any():
            return {name: float(s) for name, here, s in zip(CLASSES[1:], present, severities, strict=True) if here}


def find_all(findings: dict[str, float], eye: Eye, x: Array, rng: np.random.Generator) -> Findings:
    """What an eye's findings do to the columns [width] of one B-scan."""
    zero = np.zeros_like(x)
    found = Findings(zero, zero, zero, zero, zero, zero)
    for name, kind in KINDS.items():
        if name in findings:
            severity = float(np.clip(findings[name] + rng.normal(0, 0.1), 0.05, 1.0))
            found = DISEASES[kind](found, eye, x, severity, rng)
    if "HEM" in findings:  # specks of blood in the inner retina, harder to see here than in the fundus
        count = 2 + int(rng.poisson(5 * findings["HEM"]))
        specks = [(rng.uniform(x[0], x[-1]), rng.uniform(0.1, 0.45), rng.uniform(10, 22)) for _ in range(count)]
        found = replace(found, foci=[*found.foci, *specks])
    return found


def draw_oct(findings: dict[str, float], eye_seed: int, image_seed: int, size: int = SIZE) -> Image.Image:
    """A B-scan of an eye, mode L; an epiretinal membrane lies on it as a bright, wrinkled line."""
    scan = draw_scan(partial(find_all, findings), eye_seed, image_seed, (size, size))
    if "MEM" not in findings:
        return scan
    rng = np.random.default_rng([eye_seed, image_seed, 5])
    pixels = np.asarray(scan, np.float32)
    smooth = np.asarray(scan.resize((size // 4, size // 4), Image.Resampling.BOX).resize(scan.size), np.float32)
    rows = np.arange(size)[:, None]
    white = int(np.logical_and.accumulate(pixels[: size // 4] > 250, axis=0).sum(axis=0).max())  # corners, as scanners leave
    bound = 0.5 * smooth[smooth < 250].mean() + 0.18 * smooth[smooth < 250].max()
    tissue = (smooth > bound) & (rows >= (white + 8 if white else 0))
    surface = np.where(tissue.any(axis=0), tissue.argmax(axis=0), size // 3).astype(np.float64)
    columns = np.arange(size)
    left = rng.uniform(0.0, 0.5) * size
    right = left + (0.25 + 0.5 * findings["MEM"]) * size
    wave = 2.0 * np.sin(columns / rng.uniform(3, 7) + rng.uniform(0, 6)) * findings["MEM"]
    strips = np.percentile(surface[: size // 16 * 16].reshape(-1, 16), 25, axis=1)  # shadows of vessels hide the surface
    line = np.interp(columns, columns[8::16][: len(strips)], strips) - 3 - wave
    here = np.clip(np.minimum(columns - left, right - columns) / 8, 0, 1)
    bright = 235 * here * np.exp(-(((rows - line) / 1.9) ** 2)) * (0.65 + 0.35 * findings["MEM"])
    return Image.fromarray(np.clip(np.maximum(pixels, bright), 0, 255).astype(np.uint8))


def write_paired(
    root: Path,
    patients: int,
    images: int,
    seed: int,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Draw a paired data set, whole or not at all. Returns the number of images (of both modalities).

    Every patient has two eyes with findings of their own, every eye `images` images of each modality. A quarter of the patients
    is the test part.

    Raises:
        OctcError: E104 fewer than eight patients, E106 `root` exists without `force`, or was not drawn by octc, E109 it
            cannot be written.
    """
    if patients < 8 or images < 1:
        text = f"{patients} patients with {images} images of each eye and modality"
        raise OctcError("OCT-E104", text, hint="at least 8 patients and 1 image", place="octc data paired-synthetic")
    if force and root.exists() and not (root / PHANTOM_MARK).is_file() and any(root.iterdir()):
        text = f"{root} was not drawn by octc, so --force does not replace it"
        raise OctcError("OCT-E106", text, hint="give another folder", place=str(root))
    held_out = max(1, round(patients * TEST_SHARE))
    total = 2 * 2 * patients * images
    lines: dict[tuple[str, str], list[str]] = {(p, m): [] for p in ("train", "val", "test") for m in LISTS}
    try:
        with publishing(root, force=force) as folder:
            for name in FOLDERS.values():
                (folder / "train" / "Images" / name).mkdir(parents=True)
            for done, (patient, modality, line) in enumerate(_draw(folder, patients, images, seed), 1):
                lines["test" if patient < held_out else "train", modality].append(line)
                if progress is not None:
                    progress(done, total)
            for (part, modality), rows in lines.items():
                (folder / part).mkdir(exist_ok=True)
                (folder / part / LISTS[modality]).write_text("".join(rows), encoding="utf-8")
            facts = {"patients": patients, "images": images, "seed": seed, "classes": CLASSES, "size": SIZE}
            write_json(folder / PHANTOM_MARK, {"paired": True, **facts})
    except OSError as error:
        text = f"synthetic images cannot be written: {error.strerror}"
        raise OctcError("OCT-E109", text, hint="a writable folder with room", place=str(root)) from error
    return total


def _draw(folder: Path, patients: int, images: int, seed: int) -> Iterator[tuple[int, str, str]]:
    """Draw and save every image; for each its patient, its modality and its line of the table."""
    for patient, (side, word) in itertools.product(range(patients), enumerate(SIDES)):
        findings = draw_labels(np.random.default_rng([seed, patient, side, 3]))
        marks = " ".join("1" if (name in findings or (not findings and name == "NOR")) else "0" for name in CLASSES)
        eye_seed = int(np.random.SeedSequence([seed, patient, side]).generate_state(1, np.uint64)[0])
        for index in range(images):
            stem = f"{1000 + patient}-{word}-{index + 1}"
            pictures = {
                "oct": draw_oct(findings, eye_seed, index),
                "fundus": draw_fundus(findings, eye_seed, index, SIZE, side),
            }
            for modality, picture in pictures.items():
                picture.save(folder / "train" / "Images" / FOLDERS[modality] / f"{stem}.png", "PNG")
                yield patient, modality, f"{stem} {marks}\n"
