"""Synthetic B-scans for `make demo` and the tests. They look like OCT, and say nothing about real patients.

A patient has an anatomy, a scanner and a severity; an image has its own tilt, position, speckle and lesions. Everything is
determined by the seeds; the same seeds, versions and machine type give identical files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import publishing, write_json
from octc.datasets.layouts.folders import PHANTOM_MARK
from octc.datasets.synthetic.retina import CHOROID, LAYERS, ROW, SWELLS, VITREOUS, Array, Eye, Findings, draw_eye, draw_findings

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
SIZE = (512, 496)  # pixels, as most images of UCSD
TEST_SHARE = 0.25  # share of the patients in the test part
QUALITY = 92  # JPEG quality

Field = npt.NDArray[np.float32]


def draw_phantom(
    kind: str, patient_seed: int, image_seed: int, size: tuple[int, int] = SIZE, *, severity: float = 0.0
) -> Image.Image:
    """Generate one B-scan, mode L, of `size` (width, height). `kind` is one of CLASSES (else KeyError).

    severity: minimum severity of a patient's disease, 0 to 1; higher values exclude subtle cases.
    """

    def find(eye: Eye, x: Array, rng: np.random.Generator) -> Findings:
        return draw_findings(kind, replace(eye, severity=severity + (1 - severity) * eye.severity), x, rng)

    return draw_scan(find, patient_seed, image_seed, size)


def draw_scan(
    find: Callable[[Eye, Array, np.random.Generator], Findings],
    patient_seed: int,
    image_seed: int,
    size: tuple[int, int] = SIZE,
) -> Image.Image:
    """Generate one B-scan with the findings that `find` gives for the patient's eye at columns [width]."""
    eye = draw_eye(np.random.default_rng([patient_seed, 1]))
    rng = np.random.default_rng([patient_seed, image_seed, 2])
    width, height = size
    zoom = width / SIZE[0]
    fovea = rng.normal(0.5, 0.10) * width
    x: Array = (np.arange(width, dtype=np.float64) - fovea) * (eye.across / zoom)
    findings = find(eye, x, rng)
    scale = eye.scale * zoom * rng.uniform(0.96, 1.04)  # pixels per micrometre of depth
    edges = _edges(eye, findings, x, scale, height, rng)
    picture = _reflect(eye, findings, edges, height)
    _choroid(picture, eye, edges[-1], scale, rng)
    _spots(picture, findings, x, edges, scale, rng)
    _shadows(picture, eye, findings, edges, rng, zoom)
    _vitreous(picture, edges[0], rng)
    return _scan(picture, eye, rng)


def _edges(eye: Eye, findings: Findings, x: Array, scale: float, height: int, rng: np.random.Generator) -> Array:
    """Rows of the upper edges of all layers and the lower edge of the last one, pixels: [layers + 1, width]."""
    pit = eye.pit_depth * float(np.clip(rng.normal(0.92, 0.2), 0.0, 1.05)) * np.exp(-(np.abs(x / eye.pit_width) ** 2.2))
    pit = np.clip(pit, 0, 1)
    beside = np.array([row[1] for row in LAYERS])[:, None]
    centre = np.array([row[2] for row in LAYERS])[:, None]
    thick = (beside + (centre - beside) * pit) * eye.layers[:, None]
    thick[: ROW["inner nuclear"]] *= np.exp(-(np.abs(x / 4200.0) ** 2))  # thinner far from the fovea
    thick[ROW["nerve fibres"]] *= np.clip(1 + eye.nasal * x / 2600.0, 0.25, 2.2)
    lifted = findings.deposit + np.clip(np.abs(findings.ragged) * rng.normal(0, 1, len(x)), -0.5 * findings.deposit, None)
    thick[ROW["sub-RPE deposit"]] = lifted
    thick[ROW["subretinal material"]] = findings.material
    thick[ROW["subretinal fluid"]] = findings.fluid
    raised = lifted + findings.material + findings.fluid
    pressed = raised - (1 - 0.5 * lifted / np.maximum(raised, 1e-9)) * _smooth(raised, 220.0 / (x[1] - x[0]))
    nuclear = thick[ROW["outer nuclear"]]
    thick[ROW["outer nuclear"]] = nuclear - np.clip(pressed, -0.5 * nuclear, 0.75 * nuclear)  # the inner layers stay smooth
    for name, share in zip(SWELLS, (0.35, 0.2, 0.45), strict=True):
        thick[ROW[name]] += share * findings.swelling
    middle = rng.normal(0.56, 0.05) * height
    across = x / 1000.0
    base = middle + scale * 1000.0 * (rng.normal(0, 0.035) * across - eye.curvature * across**2)
    base += scale * 3.0 * np.interp(x, np.linspace(x[0], x[-1], 9), rng.normal(0, 1, 9))
    above = np.cumsum(thick[::-1], axis=0)[::-1] * scale
    return np.vstack([base - above, base[None]])


def _smooth(values: Array, columns: float) -> Array:
    """Running mean over about `columns` columns, applied three times (nearly Gaussian)."""
    half = max(1, int(columns / 2))
    kernel = np.ones(2 * half + 1) / (2 * half + 1)
    for _ in range(3):
        values = np.convolve(np.pad(values, half, mode="edge"), kernel, mode="valid")
    return values


def _reflect(eye: Eye, findings: Findings, edges: Array, height: int) -> Field:
    """Reflectivity of every pixel: steps at the layer edges with sub-pixel position, summed downwards."""
    width = edges.shape[1]
    levels = np.repeat(np.array([VITREOUS, *(row[3] for row in LAYERS), CHOROID])[:, None], width, axis=1)
    for name, loss in (("ellipsoid", 0.75), ("outer segments", 0.45), ("pigment epithelium", 0.35), ("myoid", -0.3)):
        levels[1 + ROW[name]] *= 1 - loss * findings.broken
    steps = np.diff(levels, axis=0)
    rows = np.clip(edges, 0, height - 1.001)
    whole = rows.astype(np.intp)
    part = rows - whole
    columns = np.broadcast_to(np.arange(width), whole.shape)
    picture = np.zeros((height + 1, width))
    picture[0] = VITREOUS
    np.add.at(picture, (whole, columns), steps * (1 - part))
    np.add.at(picture, (whole + 1, columns), steps * part)
    return np.cumsum(picture[:height], axis=0).astype(np.float32)


def _cloud(rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]) -> Field:
    """Smooth noise [height, width], mean 0 and std about 1, with blobs of about `cell` pixels (height, width)."""
    small = rng.standard_normal((max(2, int(shape[0] / cell[0])), max(2, int(shape[1] / cell[1]))), dtype=np.float32)
    picture = Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float32)


def _choroid(picture: Field, eye: Eye, floor: Array, scale: float, rng: np.random.Generator) -> None:
    """Below Bruch's membrane: light fades, large vessels are dark, and the sclera behind is a faint step."""
    height, width = picture.shape
    top = max(0, int(floor.min()))
    depth = (np.arange(top, height, dtype=np.float32)[:, None] - floor[None].astype(np.float32)) / np.float32(scale)
    below = depth > 0
    thick = eye.choroid * np.exp(0.12 * _cloud(rng, (1, width), (1, width / 5)))
    vessels = _cloud(rng, depth.shape, (32 * scale, 70 / eye.across * width / SIZE[0]))
    dark = np.clip(vessels * 0.9 + 0.1, 0, 1) * np.clip((depth - 15) / 60, 0, 1) * (depth < thick)
    fade = np.exp(-np.maximum(depth, 0) / np.float32(rng.uniform(130, 260))) * np.where(depth < thick, 1.0, 0.8)
    picture[top:] *= np.where(below, fade * (1 - 0.45 * dark), 1).astype(np.float32)


def _spots(picture: Field, findings: Findings, x: Array, edges: Array, scale: float, rng: np.random.Generator) -> None:
    """Cystoid spaces (dark, sharp) and hyperreflective foci (bright), each in its own window; grain of the lesion."""
    pitch = float(x[1] - x[0])
    tall = edges[ROW["ellipsoid"]] - edges[0]
    kinds = [(c, d, a, b, 0.07, 0.92) for c, d, a, b in findings.cysts]
    kinds += [(c, d, r, r, rng.uniform(0.65, 0.95), 0.85) for c, d, r in findings.foci]
    for centre, depth, across, along, level, strength in kinds:
        column = round((centre - x[0]) / pitch)
        if not 0 <= column < len(x):
            continue
        row = edges[0][column] + depth * tall[column]
        a, b = across / pitch, min(along * scale, 0.30 * tall[column] + 1)
        left, right = max(0, int(column - a - 3)), min(len(x), int(column + a + 4))
        top, low = max(0, int(row - b - 3)), min(picture.shape[0], int(row + b + 4))
        if top >= low:
            continue
        gx, gy = np.arange(left, right)[None] - column, np.arange(top, low)[:, None] - row
        inside = np.clip((1 - np.hypot(gx / a, gy / b)) * min(a, b) / 1.5 + 0.5, 0, 1) * strength
        window = picture[top:low, left:right]
        window += ((level - window) * inside).astype(np.float32)
    if findings.material.max() > 0 or findings.deposit.max() > 40:
        grain = _cloud(rng, picture.shape, (5, 7))
        rows = np.arange(picture.shape[0])[:, None]
        lesion = (rows > edges[ROW["subretinal material"]]) & (rows < edges[-2]) & (findings.broken > 0.1)
        picture *= np.where(lesion, np.clip(1 + 0.28 * grain, 0.3, 1.6), 1).astype(np.float32)


def _shadows(picture: Field, eye: Eye, findings: Findings, edges: Array, rng: np.random.Generator, zoom: float) -> None:
    """Vessels of the inner retina block the light below them; a broken epithelium lets more through."""
    height, width = picture.shape
    columns, rows = np.arange(width), np.arange(height)[:, None]
    light = np.ones(width)
    for _ in range(int(rng.poisson(eye.vessels))):
        centre, half = rng.uniform(0, width), rng.uniform(1.5, 6.0) * zoom
        light *= 1 - rng.uniform(0.1, 0.5) * np.exp(-(((columns - centre) / half) ** 2))
    start = edges[1] + 0.3 * (edges[2] - edges[1])
    picture *= np.where(rows > start, light, 1).astype(np.float32)
    streaks = np.interp(columns, np.linspace(0, width, 90), rng.uniform(0.0, 1.1, 90)) * findings.broken
    haze = np.clip((findings.material + findings.deposit - 60) / 200, 0, 0.5)
    picture *= np.where(rows > edges[-1], 1 + streaks - haze, 1).astype(np.float32)


def _vitreous(picture: Field, surface: Array, rng: np.random.Generator) -> None:
    """Some eyes show the detached hyaloid as a thin line above the retina."""
    if rng.random() > 0.3:
        return
    width = picture.shape[1]
    side = np.linspace(-1, 1, width) * rng.choice([-1, 1])
    line = surface - np.clip(side + rng.uniform(-0.3, 0.6), 0, None) * rng.uniform(8, 60) - 1
    rows = np.clip(line, 0, picture.shape[0] - 2).astype(np.intp)
    columns = np.arange(width)
    bright = np.where(line > 1, rng.uniform(0.1, 0.3) * (surface - line > 3), 0).astype(np.float32)
    picture[rows, columns] += bright
    picture[rows + 1, columns] += 0.5 * bright


def _scan(picture: Field, eye: Eye, rng: np.random.Generator) -> Image.Image:
    """Optics and electronics: blur, speckle, noise, gain, gamma, 8 bits; four in ten have a white wedge."""
    height, width = picture.shape
    blurred = picture.copy()
    blurred[1:-1] = 0.25 * picture[:-2] + 0.5 * picture[1:-1] + 0.25 * picture[2:]
    sharp = np.float32(eye.sharpness)
    seen = sharp * picture + (1 - sharp) * blurred
    grain = rng.standard_normal((height, width + 1), dtype=np.float32)
    grain = 0.7 * (grain[:, 1:] + grain[:, :-1]) * np.float32(eye.speckle)
    seen *= 1 + grain + 0.10 * _cloud(rng, (height, width), (9, 24))
    seen += np.float32(eye.floor) * (rng.standard_normal((height, width), dtype=np.float32) - np.float32(0.4))
    seen = np.clip(seen * np.float32(eye.gain), 0, 1) ** np.float32(eye.gamma)
    pixels = np.rint(seen * 255).astype(np.uint8)
    if rng.random() < 0.4:
        wedge = rng.uniform(0.0, 0.14) * height + rng.normal(0, 0.03) * np.arange(width) * height / width
        rows = np.arange(height)[:, None]
        pixels[(rows < wedge) if rng.random() < 0.5 else (rows > height - 1 - wedge)] = 255
    return Image.fromarray(pixels)


def write_phantoms(
    root: Path,
    images_per_class: int,
    patients_per_class: int,
    seed: int,
    size: tuple[int, int] = SIZE,
    *,
    severity: float = 0.0,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Generate a data set in the layout of UCSD, atomically. Returns the number of images.

    severity: as in `draw_phantom`; it is recorded with the seed.

    Every class has its own patients; a quarter of them are in the test part. With more images than patients, each patient gets
    several.

    Raises:
        OctcError: E104 fewer than two patients per class, or fewer images than patients; E106 `root` exists without `force`, or
            was not generated by octc; E109 it cannot be written.
    """
    if patients_per_class < 2 or images_per_class < patients_per_class:
        text = f"{images_per_class} images and {patients_per_class} patients per class"
        raise OctcError(
            "OCT-E104", text, hint="at least 2 patients per class, and an image for each", place="octc data synthetic"
        )
    if not 0 <= severity <= 1:
        raise OctcError(
            "OCT-E104", f"--severity {severity} is out of range", hint="--severity 0 to 1", place="octc data synthetic"
        )
    if force and root.exists() and not (root / PHANTOM_MARK).is_file() and any(root.iterdir()):
        text = f"{root} was not drawn by octc, so --force does not replace it"
        raise OctcError("OCT-E106", text, hint="give another folder", place=str(root))
    held_out = max(1, round(patients_per_class * TEST_SHARE))
    total, done = images_per_class * len(CLASSES), 0
    try:
        with publishing(root, force=force) as folder:
            for row, kind in enumerate(CLASSES):
                for number in range(images_per_class):
                    patient, index = number % patients_per_class, number // patients_per_class
                    name = 1000 + row * patients_per_class + patient
                    part = "test" if patient < held_out else "train"
                    place = folder / "CellData" / "OCT" / part / kind
                    place.mkdir(parents=True, exist_ok=True)
                    picture = draw_phantom(kind, _mix(seed, name), index, size, severity=severity)
                    picture.save(place / f"{kind}-{name}-{index + 1}.jpeg", "JPEG", quality=QUALITY)
                    done += 1
                    if progress is not None:
                        progress(done, total)
            facts = {"images_per_class": images_per_class, "patients_per_class": patients_per_class, "seed": seed, "size": size}
            write_json(folder / PHANTOM_MARK, {**facts, **({"severity": severity} if severity else {})})
    except OSError as error:
        text = f"synthetic images cannot be written: {error.strerror}"
        raise OctcError("OCT-E109", text, hint="a writable folder with room", place=str(root)) from error
    return total


def _mix(seed: int, patient: int) -> int:
    """The seed of a patient, from the data set's seed; data sets with different seeds share no eye."""
    return int(np.random.SeedSequence([seed, patient]).generate_state(1, np.uint64)[0])
