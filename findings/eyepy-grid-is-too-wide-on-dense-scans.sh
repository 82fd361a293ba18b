#!/usr/bin/env bash
# eyepy 0.21.0: the circles of the ETDRS grid are twice as wide where the A-scans are twice as dense.
#
# Guess, written down before the run: the circle of 0.5 mm has pi / 4 mm² on the fundus image, for a volume with A-scans twice as dense as its pixels too, and
# a layer of 0.3 mm has 0.236 mm³ in it.
#
# Seen on 2026-12-02: the radii are divided by the width of an A-scan and drawn on the pixels of the fundus image. With 512 A-scans of 11.4 µm on an image of
# 11.4 µm both are right. With 1024 of 5.7 µm on the same 5.8 mm and the same image (a denser pattern of the same device) the circle has 3.14
# mm² and the same layer 0.943 mm³, four times as much; the outer ring runs over the edge of the scan and has 14.5 mm³ for 6.36. The names still tell
# "Radius: 0-0.5". No warning. Fluid or thickness by sector, and every label or threshold made of them, depends on the mode of the scan. Multiply the
# radii by volume.scale_x / volume.localizer.scale_x before.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 scikit-image==0.26.0 eyepy==0.21.0
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
from eyepy.core import EyeBscanMeta, EyeEnface, EyeEnfaceMeta, EyeVolume, EyeVolumeMeta

pixel, depth, between = 0.0114, 0.004, 0.24  # mm of the fundus image, along an A-scan, and from one B-scan to the next


def measured(columns, width, mended=False):
    left, top = 384 * pixel - columns * width / 2, 384 * pixel - 12 * between
    lines = [
        EyeBscanMeta(start_pos=(left, top + i * between), end_pos=(left + columns * width, top + i * between), pos_unit="mm") for i in range(25)
    ]
    about = EyeVolumeMeta(scale_x=width, scale_y=depth, scale_z=between, scale_unit="mm", laterality="OD", bscan_meta=lines)
    shown = EyeEnfaceMeta(scale_x=pixel, scale_y=pixel, scale_unit="mm", modality="NIR", laterality="OD", field_size=30)
    fundus = EyeEnface(np.zeros((768, 768), np.uint8), shown)
    volume = EyeVolume(data=np.zeros((25, 100, columns), np.uint8), meta=about, localizer=fundus)
    layer = np.zeros(volume.shape, bool)
    layer[:, 20:95] = True  # 0.3 mm
    factor = volume.scale_x / volume.localizer.scale_x if mended else 1
    radii = tuple(factor * radius for radius in (0.5, 1.5, 3.0))
    note = volume.add_pixel_annotation(layer, name="Layer", radii=radii, n_sectors=(1, 4, 4), rotation=(0, -45, -45))
    areas = [mask.sum() * pixel**2 for mask in note.masks.values()]
    amounts = [value for name, value in note.quantification.items() if name.startswith("Radius")]
    rings = [(sum(values[a:b])) for values in (areas, amounts) for a, b in ((0, 1), (1, 5), (5, 9))]
    total = note.quantification["Total [mm³]"]
    print(columns, "A-scans,", list(note.masks)[0], "mm² of disc and rings", np.round(rings[:3], 3), "mm³", np.round(rings[3:], 3), "of", round(float(total), 2))
    return np.array([*rings, total])


plain, dense, mended = measured(512, pixel), measured(1024, pixel / 2), measured(1024, pixel / 2, mended=True)
assert abs(plain[0] - np.pi / 4) < 0.01 and abs(plain[3] - 0.3 * np.pi / 4) < 0.005
assert abs(plain[6] - dense[6]) < 0.05
assert np.allclose(mended, plain, rtol=0.02)
assert abs(dense[0] / plain[0] - 4) < 0.1 and abs(dense[3] / plain[3] - 4) < 0.1, "the behaviour changed"
PY
