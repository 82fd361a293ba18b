#!/usr/bin/env bash
# albumentations 2.0.8: several transforms turn a 16-bit grey image into a white one, without a word.
#
# Guess, written down before the run: a pixel transform on a uint16 image (257 times a uint8 one) gives what it gives for uint8,
# scaled, or refuses uint16 as CLAHE, Equalize and Posterize do.
#
# Seen on 2026-11-30: MedianBlur, AutoContrast, Superpixels and Downscale answer with a float32 image of 255 for 99 % of the
# pixels (the values are taken for floats, cut to 0..1 and multiplied by 255). RandomGamma answers in float64 with the power of
# the codes themselves (a mean of 459 of 65,535: black), and Solarize turns at another grey level. GaussianBlur, Rotate, Sharpen
# and RandomBrightnessContrast are right. No warning. A training on 16-bit B-scans then learns from a share of blank images with
# the labels of real ones. Convert to float32 in 0..1 first (ToFloat), where all agree.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 opencv-python-headless==5.0.0.93 \
    albucore==0.0.24 albumentations==2.0.8
cd "$dir"
HOME="$dir" NO_ALBUMENTATIONS_UPDATE=1 venv/bin/python -W error - <<'PY'
import albumentations as A
import numpy as np

rng = np.random.default_rng(0)
grey = np.clip(rng.normal(110, 40, (64, 80, 1)), 0, 255).astype(np.uint8)
kinds = {"uint8": (grey, 255), "uint16": (grey.astype(np.uint16) * 257, 65535), "float32": ((grey / 255).astype(np.float32), 1)}


def shares(transform):
    """For each type: the type that came out, and the mean as a share of white of the type that went in."""
    found = {}
    for name, (image, white) in kinds.items():
        out = A.Compose([transform], seed=3)(image=image.copy())["image"]
        found[name] = (str(out.dtype), round(float(out.astype(np.float64).mean()) / white, 3), float((out == 255).mean()))
    return found


right = (A.GaussianBlur((5, 5), p=1), A.Rotate((10, 10), p=1), A.Sharpen((0.3, 0.3), (0.8, 0.8), p=1), A.RandomBrightnessContrast((0.2, 0.2), (0.2, 0.2), p=1))
white = (A.MedianBlur((5, 5), p=1), A.AutoContrast(p=1), A.Superpixels(p=1), A.Downscale((0.5, 0.5), p=1))
for transform in right:
    found = shares(transform)
    print(type(transform).__name__, found)
    assert found["uint16"][0] == "uint16" and abs(found["uint16"][1] - found["uint8"][1]) < 0.01
for transform in white:
    found = shares(transform)
    print(type(transform).__name__, found)
    assert abs(found["float32"][1] - found["uint8"][1]) < 0.01
    assert found["uint16"][0] == "float32" and found["uint16"][2] > 0.98, "the behaviour changed"
gamma, solarized = shares(A.RandomGamma((60, 60), p=1)), shares(A.Solarize((0.5, 0.5), p=1))
print("RandomGamma", gamma, "Solarize", solarized)
assert gamma["uint16"][0] == "float64" and gamma["uint16"][1] < 0.01, "the behaviour changed"
assert solarized["uint16"][1] > solarized["uint8"][1] + 0.1, "the behaviour changed"
PY
