#!/usr/bin/env bash
# timm 1.0.31: its image folder takes the innermost folder for the class, and numbers only classes that have images.
#
# Guess, written down before the run: create_dataset("", folder) gives the classes of torchvision's ImageFolder: the folders right below, in the order of
# their names, with whatever lies deeper; an empty class folder keeps its number or is refused, as there.
#
# Seen on 2026-12-01: of CNV/patient-1/1.png the class is "patient-1", so that each patient is a class of its own. Of a part whose DME folder is empty,
# NORMAL is 1 where it is 2 with images of DME, so that every normal eye is judged as one with DME. Names are sorted without
# regard to case: "amd" stands before "CNV", and behind it in torchvision, so that a network trained by the one is evaluated by the other with two
# classes exchanged. No error, no warning. Give class_map, and keep the images right below their class.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6 pillow==13.0.0
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
from pathlib import Path

from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder


def folder(name, files, empty=()):
    for path in (*files, *empty):
        (place := Path(name, path)).parent.mkdir(parents=True, exist_ok=True)
        if path in files:
            Image.new("L", (8, 8)).save(place)
    return name


def timm_of(root):
    return create_dataset("", root).reader.class_to_idx


def torchvision_of(root):
    try:
        return ImageFolder(root).class_to_idx
    except FileNotFoundError as error:
        return type(error).__name__


patients = folder("patients", ["CNV/patient-1/1.png", "CNV/patient-2/1.png", "DME/patient-3/1.png"])
part = folder("part", ["CNV/1.png", "NORMAL/1.png"], ["DME/none.png"])
case = folder("case", ["CNV/1.png", "amd/1.png"])
for root in (patients, part, case):
    print(root, "timm", timm_of(root), "torchvision", torchvision_of(root))
assert torchvision_of(patients) == {"CNV": 0, "DME": 1} and torchvision_of(case) == {"CNV": 0, "amd": 1}
assert torchvision_of(part) == "FileNotFoundError"
assert timm_of(patients) == {"patient-1": 0, "patient-2": 1, "patient-3": 2}, "the behaviour changed"
assert timm_of(part) == {"CNV": 0, "NORMAL": 1} and timm_of(case) == {"amd": 0, "CNV": 1}, "the behaviour changed"
PY
