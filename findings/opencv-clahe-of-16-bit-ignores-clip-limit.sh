#!/usr/bin/env bash
# OpenCV 5.0.0: CLAHE of a 16-bit grey image does next to nothing, whatever its clip limit is.
#
# Guess, written down before the run: createCLAHE(clip limit, 8 x 8 tiles) gives for a uint16 B-scan (257 times a uint8 one) about what
# it gives for the uint8 one, scaled, and a larger limit gives more contrast in both.
#
# Seen on 2026-12-01 (496 x 512 pixels): in 8 bits the standard deviation of the greys goes from 19 to 28, 38, 53 and 71 with limits of 1,
# 2, 4 and 10; in 16 bits it is 20 for all four, and the four images are equal to the last bit. The limit is a share of the tile's
# pixels over 65,536 bins: 2 x 3,968 / 65,536 is below one pixel, and one pixel a bin is the least. No warning. A limit that was
# tuned on 8-bit exports so leaves the 16-bit scans of the same device as they were: the network that was trained on equalised
# scans sees flat ones. Convert to 8 bits before it, as the training did, or give a limit 256 times as large.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import cv2
import numpy as np

rows, columns = np.mgrid[0:496, 0:512]
retina = 40 + 60 * np.exp(-(((rows - 250 - 20 * np.sin(columns / 80)) / 30) ** 2))
scan = (retina + np.random.default_rng(0).normal(0, 12, retina.shape)).clip(0, 255).astype(np.uint8)
wide = scan.astype(np.uint16) * 257
limits = (1, 2, 4, 10)
narrow_made = [cv2.createCLAHE(limit, (8, 8)).apply(scan) for limit in limits]
wide_made = [cv2.createCLAHE(limit, (8, 8)).apply(wide) for limit in limits]
contrast = [[round(float(np.std(image / unit)), 1) for image in made] for made, unit in ((narrow_made, 1), (wide_made, 257))]
print("contrast before", round(float(scan.std()), 1), "limits", limits, "8 bits", contrast[0], "16 bits", contrast[1])
assert contrast[0] == sorted(contrast[0]) and contrast[0][3] > 3 * scan.std()
assert all(np.array_equal(wide_made[0], image) for image in wide_made), "the behaviour changed"
assert contrast[1][0] < 1.1 * scan.std(), "the behaviour changed"
scaled = cv2.createCLAHE(2 * 256, (8, 8)).apply(wide)
print("16 bits, limit 512:", round(float(np.std(scaled / 257)), 1))
assert abs(float(np.std(scaled / 257)) - contrast[0][1]) < 0.1 * contrast[0][1]
PY
