#!/usr/bin/env bash
# SimpleITK 2.5.7: a scan of whole numbers times 1.5 is the same scan, times 0.5 black; its filters cut fractions off, and a blur darkens.
#
# Guess, written down before the run: resampling, shrinking and smoothing of uint8 round to the nearest grey, so that the mean stays. (The arithmetic
# was met beside it; no guess of it was written down.)
#
# Seen on 2026-12-02 (uint8, uint16 and int16): the number is cut to the type of the pixels before it is used. image * 1.5 and image + 0.7 are the image,
# image * 0.5 is 0 everywhere, image / 0.5 is infinite (and float64), image ** 0.5 is 1 everywhere: a gamma or a gain on a 16-bit B-scan does nothing or
# blanks it. Of uint8, image + 100 turns 200 into 44. Linear Resample, Mean, Expand, Bilateral and IntensityWindowing keep the floor, half a grey
# less on average, BinShrink rounds; DiscreteGaussian takes half a grey for each axis, one for a B-scan. No warning. A visit that is resampled
# onto the one before is darker than it each time. Cast to float32 first, and round when it is cast back.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 SimpleITK==2.5.7
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import numpy as np
import SimpleITK as sitk


def array(image):
    return sitk.GetArrayFromImage(image)


for kind in (np.uint8, np.uint16, np.int16):
    greys = np.arange(0, 250, 10).astype(kind).reshape(5, 5)
    scan = sitk.GetImageFromArray(greys)
    print(kind.__name__, "110 * 1.5:", array(scan * 1.5)[2, 1], "* 0.5:", array(scan * 0.5)[2, 1], "/ 0.5:", array(scan / 0.5)[2, 1])
    assert (array(scan * 1.5) == greys).all() and (array(scan + 0.7) == greys).all(), "the behaviour changed"
    assert not array(scan * 0.5).any() and np.isinf(array(scan / 0.5)[1:]).all(), "the behaviour changed"
    assert (array(scan**0.5) == 1).all(), "the behaviour changed"
    right = array(sitk.Cast(scan, sitk.sitkFloat32) * 1.5)
    assert np.allclose(right, greys * 1.5)
    if kind is np.uint8:
        assert array(scan + 100)[4, 0] == 44, "the behaviour changed"

noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
scan = sitk.GetImageFromArray(noise)
real = sitk.Cast(scan, sitk.sitkFloat32)
move = sitk.TranslationTransform(2, (0.3, 0.7))
filters = {
    "Resample": lambda image: sitk.Resample(image, move, sitk.sitkLinear, 0.0),
    "Mean": lambda image: sitk.Mean(image, [1, 1]),
    "Bilateral": lambda image: sitk.Bilateral(image, 2.0, 20.0),
    "IntensityWindowing": lambda image: sitk.IntensityWindowing(image, 50, 200, 0, 255),
    "BinShrink": lambda image: sitk.BinShrink(image, [2, 2]),
    "DiscreteGaussian": lambda image: sitk.DiscreteGaussian(image, 2.0),
}
lost = {name: float((array(made(scan)).astype(float) - array(made(real))).mean()) for name, made in filters.items()}
print("greys lost by the mean in uint8:", {name: round(value, 2) for name, value in lost.items()})
for name in ("Resample", "Mean", "Bilateral"):
    assert -0.6 < lost[name] < -0.4, "the behaviour changed"
assert lost["IntensityWindowing"] < -0.2 and lost["DiscreteGaussian"] < -0.9, "the behaviour changed"
assert abs(lost["BinShrink"]) < 0.2
PY
