#!/usr/bin/env bash
# datasets 5.2.0: one file or patient with "test" in its name, and "imagefolder" loads that one and drops all others.
#
# Guess, written down before the run: load_dataset("imagefolder") of CNV/ and NORMAL/ loads every picture below them with the folder
# as its class, in one split "train", whatever the files are called.
#
# Seen on 2026-11-30: with CNV/a.png, CNV/b-test-1.png and NORMAL/c.png there is one split, "test", with one picture and no class at
# all; the others are in no split. A folder of a patient named "pat-test" does the same, and so does clinic_training_1.png for
# "train". Names are searched anywhere below the folder for train, training, test, testing, val, validation, dev, eval and
# the like, and where one of them stands between separators, only such files count. No warning. An export where one scan was
# called a test by the operator trains on, or is judged by, that scan alone. Count what was loaded, or give data_files.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 pillow==13.0.0 datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1
cd "$dir"
HF_HUB_OFFLINE=1 HOME="$dir" venv/bin/python - <<'PY'
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
cases = {
    "plain": (("CNV/a.png", "CNV/b.png", "NORMAL/c.png"), {"train": ["a.png", "b.png", "c.png"]}),
    "file": (("CNV/a.png", "CNV/b-test-1.png", "NORMAL/c.png"), {"test": ["b-test-1.png"]}),
    "patient": (("CNV/pat-test/a.png", "CNV/p2/b.png", "NORMAL/p3/c.png"), {"test": ["a.png"]}),
    "clinic": (("CNV/clinic_training_1.png", "NORMAL/b.png"), {"train": ["clinic_training_1.png"]}),
}
for name, (paths, expected) in cases.items():
    for place in (Path(name, path) for path in paths):
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(place)
    loaded = datasets.load_dataset("imagefolder", data_dir=name, cache_dir="cache")
    seen = {split: sorted(Path(row["image"].filename).name for row in rows) for split, rows in loaded.items()}
    classes = {split: "label" in rows.features for split, rows in loaded.items()}
    print(name, paths, "->", seen, "with classes", classes)
    assert seen == expected, "the behaviour changed"
    assert all(has == (name == "plain") for has in classes.values()), "the behaviour changed"
PY
