#!/usr/bin/env bash
# MONAI 1.6.1: a blank white scan that is scaled to -1..1 is -255, and ShiftIntensity makes the brightest greys of 8 bits black.
#
# Guess, written down before the run: ScaleIntensity of a scan of one grey gives a number of the range that was asked for, and a transform of
# intensities gives for uint8 what it gives for the same greys as floats.
#
# Seen on 2026-12-02: of one grey, the grey is multiplied by minv: with -1..1 a scan of 7 becomes -7 and one of 255 becomes -255, with 0.2..0.8 it is 1.4
# and 51, and only the default 0..1 gives 0. ScaleIntensityRangePercentiles and ScaleIntensityRange give -1 and warn; ScaleIntensity does not. A
# B-scan behind a closed shutter or a saturated one is then, inside a batch, a picture far from all others, and moves the running means of every batch
# norm. Most transforms answer in float32, but ShiftIntensity and RandShiftIntensity keep uint8 and turn over: 250 + 20 is 14. Look for
# scans of one grey first, and give floats.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile monai==1.6.1 torch==2.14.1 numpy==2.4.6
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import warnings

import torch
from monai import transforms


def said(transform, scan):
    """The numbers of the answer, and whether there was a warning."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        return [round(number, 4) for number in torch.as_tensor(transform(scan)).unique().tolist()], bool(warned)


for grey in (7.0, 255.0):
    blank = torch.full((1, 4, 4), grey)
    scaled, warned = said(transforms.ScaleIntensity(-1, 1), blank)
    within, _ = said(transforms.ScaleIntensity(0.2, 0.8), blank)
    percentiles, told = said(transforms.ScaleIntensityRangePercentiles(1, 99, -1, 1), blank)
    print(f"blank {grey:g}: to -1..1 {scaled}, to 0.2..0.8 {within}, by percentiles {percentiles}, to 0..1", said(transforms.ScaleIntensity(0, 1), blank)[0])
    assert scaled == [-grey] and within == [round(0.2 * grey, 4)] and not warned, "the behaviour changed"
    assert percentiles == [-1] and told

greys = torch.tensor([[[0, 100, 200, 250]]], dtype=torch.uint8)
for name, transform in (("ShiftIntensity", transforms.ShiftIntensity(20)), ("RandShiftIntensity", transforms.RandShiftIntensity((20, 20), prob=1.0))):
    print(name, "of uint8", greys.flatten().tolist(), "is", torch.as_tensor(transform(greys)).flatten().tolist())
    assert torch.as_tensor(transform(greys)).flatten().tolist() == [20, 120, 220, 14], "the behaviour changed"
    assert torch.as_tensor(transform(greys.float())).flatten().tolist() == [20, 120, 220, 270]
assert transforms.AdjustContrast(1.0)(greys).dtype == torch.float32
PY
