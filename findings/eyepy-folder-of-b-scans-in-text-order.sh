#!/usr/bin/env bash
# eyepy 0.21.0: import_bscan_folder stacks 1.png ... 12.png as 1, 10, 11, 12, 2, 3, ...
#
# Guess, written down before the run: a function that makes a volume of a folder of numbered B-scans puts them in the order of
# their numbers (or refuses names that it cannot order).
#
# Seen on 2026-11-30: the names are sorted as texts, so B-scan 10 comes behind 1 and 2 behind 12. No warning; each B-scan looks
# right, so only an en-face view shows it. What a classifier says for B-scan 5 of the volume belongs to another file, the
# "central" B-scan is not the central one, and neighbours that are pooled or put into channels are none. Public sets and exports
# number without zeros. Rename the files to one length, or stack them yourself.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow==13.0.0 ImageIO==2.38.1 eyepy==0.21.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
from pathlib import Path

import eyepy
import imageio.v3 as iio
import numpy as np

folders = {"plain": "{}.png", "zeros": "{:02}.png"}
order = {}
for folder, name in folders.items():
    Path(folder).mkdir()
    for number in range(1, 13):
        iio.imwrite(Path(folder) / name.format(number), np.full((4, 5), number, np.uint8))
    order[folder] = eyepy.import_bscan_folder(folder).data[:, 0, 0].tolist()
print(order)
assert order["zeros"] == list(range(1, 13))
assert order["plain"] == [1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9], "the behaviour changed"
PY
