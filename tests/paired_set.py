"""A paired data set that is drawn in no time: class k is a bright square at place k, grey for OCT, coloured for fundus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from octc.datasets.layouts.topcon import LISTS
from octc.datasets.synthetic.paired import CLASSES, FOLDERS

SIDE = 64
PLACES = [(8, 8), (8, 40), (40, 8), (40, 40), (24, 24), (8, 24)]


def write_pairs(root: Path, patients: int = 24, seed: int = 0) -> Path:
    """Layout of TOPCON-MM with the six classes of the paired phantom; a quarter of the patients is the test part."""
    rng = np.random.default_rng(seed)
    for name in FOLDERS.values():
        (root / "train" / "Images" / name).mkdir(parents=True)
    lines: dict[Path, list[str]] = {}
    for patient in range(patients):
        for eye in ("OD", "OS"):
            own = [k for k in range(1, 6) if rng.random() < 0.35]
            own = own or [0]
            stem = f"{1000 + patient}-{eye}-1"
            marks = " ".join("1" if k in own else "0" for k in range(len(CLASSES)))
            for modality, folder in FOLDERS.items():
                pixels = rng.normal(70, 15, (SIDE, SIDE, 3))
                for k in own:
                    y, x = PLACES[k]
                    pixels[y : y + 14, x : x + 14] += 110 if modality == "oct" else np.array([130, 60, 10])
                picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                picture = picture.convert("L") if modality == "oct" else picture
                picture.save(root / "train" / "Images" / folder / f"{stem}.png")
                part = "test" if patient < patients // 4 else "train"
                lines.setdefault(root / part / LISTS[modality], []).append(f"{stem} {marks}\n")
    for path, rows in lines.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(rows))
    return root
