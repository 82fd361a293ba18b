#!/usr/bin/env bash
# oct-converter 0.7.0: the eye of a Zeiss .img volume is read out of words in the file name.
#
# Guess, written down before the run (the project had already seen it miss elsewhere): the .img reader finds the eye in
# the part of a name that is exactly OD or OS, and gives none where it is not sure: BOSTON_012_OD is a right eye.
#
# Seen on 2026-11-29: the first "OD" or "OS" anywhere in the name wins: BOSTON_012_OD.img is left, NODULE_OS.img and
# GOOD_OS.img are right, BOSTON_012.img is left. No warning, and the value stands in `laterality` as if it came from the
# scan. The file itself holds no eye at all. So the eye of a result must not be taken from there.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 oct-converter==0.7.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
from pathlib import Path
import numpy as np
from oct_converter.readers import IMG

names = {
    "P1_OD.img": "R", "P1_OS.img": "L", "P1.img": "",  # as it should be
    "BOSTON_012_OD.img": "L", "NODULE_OS.img": "R", "GOOD_OS.img": "R", "BOSTON_012.img": "L",  # words
}
for name, eye in names.items():
    Path(name).write_bytes(np.zeros((1024, 512), np.uint8).tobytes())
    seen = IMG(name).read_oct_volume().laterality
    print(name, repr(seen))
    assert seen == eye, "the behaviour changed"
EOF
