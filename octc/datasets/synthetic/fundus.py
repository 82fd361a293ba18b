"""Synthetic colour fundus images with optic disc, vessels, macula and findings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float64]

BLOOD, EXUDATE, DRUSE, GREY, GLINT = (
    (0.42, 0.05, 0.03),
    (1.0, 0.92, 0.45),
    (0.95, 0.72, 0.40),
    (0.50, 0.42, 0.30),
    (1.0, 0.85, 0.72),
)
Findings = dict[str, float]


def draw_fundus(findings: Findings, eye_seed: int, image_seed: int, size: int, side: int) -> Image.Image:
    """Generate a fundus image, mode RGB, size x size pixels, centred between optic disc and macula.

    findings: severities of "DRU", "CNV", "EDE", "HEM", "MEM" in (0, 1); other findings are absent. side: 0 right eye, 1 left.
    """
    eye = np.random.default_rng([eye_seed, 11])
    rng = np.random.default_rng([eye_seed, image_seed, 12])
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size * 2 - 1  # -1 to 1
    x, y = x + rng.normal(0, 0.04), y + rng.normal(0, 0.04)
    nasal = 1 if side == 0 else -1
    tint = np.array([0.72, 0.34, 0.15]) * eye.uniform(0.8, 1.15, 3)
    picture = tint * (1 - 0.28 * (x**2 + y**2))[..., None] * (1 + 0.07 * _clouds(rng, size, 9))[..., None]
    disc = (nasal * eye.uniform(0.48, 0.58), eye.normal(0, 0.05))
    macula = (-nasal * eye.uniform(0.14, 0.24), eye.normal(0.03, 0.03))
    _blend(picture, _spot(x, y, macula, eye.uniform(0.16, 0.26)), (0.42, 0.16, 0.07), 0.6)
    _vessels(picture, x, y, disc, nasal, eye)
    _blend(picture, _spot(x, y, disc, eye.uniform(0.13, 0.17), 6), (0.98, 0.80, 0.50), 0.9)
    _blend(picture, _spot(x, y, disc, 0.06, 4), (1.0, 0.93, 0.72), 0.8)
    for name, draw in SIGNS.items():
        if name in findings:
            severity = float(np.clip(findings[name] + rng.normal(0, 0.06), 0.05, 1.0))
            draw(picture, x, y, macula, severity, np.random.default_rng([eye_seed, 13, len(name), ord(name[0])]))
    picture = picture * rng.uniform(0.8, 1.15) + rng.normal(0, 0.02, picture.shape)
    dark = np.clip((0.96 - np.hypot(x, y)) * size / 3, 0, 1)[..., None]
    return Image.fromarray(np.rint(np.clip(picture * dark, 0, 1) * 255).astype(np.uint8))


def _clouds(rng: np.random.Generator, size: int, cells: int) -> Array:
    small = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float64)


def _spot(x: Array, y: Array, centre: tuple[float, float], radius: float, power: float = 2.0) -> Array:
    out: Array = np.exp(-((np.hypot(x - centre[0], y - centre[1]) / radius) ** power))
    return out


def _blend(picture: Array, where: Array, colour: tuple[float, float, float], strength: float) -> None:
    share = np.clip(where * strength, 0, 1)[..., None]
    picture += (np.array(colour) - picture) * share


def _vessels(picture: Array, x: Array, y: Array, disc: tuple[float, float], nasal: int, eye: np.random.Generator) -> None:
    """Vascular arcades that leave the disc upwards and downwards and bend around the macula."""
    for sign in (-1, 1):
        for _ in range(3):
            reach, bend, width = eye.uniform(0.35, 0.75), eye.uniform(0.6, 1.4), eye.uniform(0.010, 0.022)
            along = nasal * (disc[0] - x)  # from the disc over the macula
            curve = disc[1] + sign * reach * bend * np.sqrt(np.clip(along, 0, None))
            wave = 0.02 * np.sin(9 * x + eye.uniform(0, 6))
            line = np.exp(-(((y - curve - wave) / width) ** 2)) * (along > -0.02)
            _blend(picture, line, (0.38, 0.08, 0.05), 0.75)


def _around(centre: tuple[float, float], spread: float, rng: np.random.Generator) -> tuple[float, float]:
    return centre[0] + rng.normal(0, spread), centre[1] + rng.normal(0, spread)


def _drusen(picture: Array, x: Array, y: Array, macula: tuple[float, float], severity: float, rng: np.random.Generator) -> None:
    for _ in range(4 + int(rng.poisson(22 * severity))):
        radius = rng.uniform(0.014, 0.022 + 0.026 * severity)
        _blend(picture, _spot(x, y, _around(macula, 0.22, rng), radius), DRUSE, 0.35 + 0.4 * severity)


def _lesion(picture: Array, x: Array, y: Array, macula: tuple[float, float], severity: float, rng: np.random.Generator) -> None:
    centre, radius = _around(macula, 0.07, rng), 0.08 + 0.16 * severity
    _blend(picture, _spot(x, y, centre, radius, 3), GREY, 0.3 + 0.35 * severity)
    for angle in rng.uniform(0, 2 * np.pi, 2 + int(4 * severity)):
        edge = (centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle))
        _blend(picture, _spot(x, y, edge, rng.uniform(0.03, 0.07), 3), BLOOD, 0.3 + 0.4 * severity)


def _oedema(picture: Array, x: Array, y: Array, macula: tuple[float, float], severity: float, rng: np.random.Generator) -> None:
    centre = _around(macula, 0.12, rng)
    for angle in rng.uniform(0, 2 * np.pi, 5 + int(rng.poisson(24 * severity))):
        away = rng.normal(0.16 + 0.12 * severity, 0.05)
        place = (centre[0] + away * np.cos(angle), centre[1] + away * np.sin(angle))
        _blend(picture, _spot(x, y, place, rng.uniform(0.008, 0.018), 4), EXUDATE, 0.9)


def _bleeding(
    picture: Array, x: Array, y: Array, macula: tuple[float, float], severity: float, rng: np.random.Generator
) -> None:
    for _ in range(3 + int(rng.poisson(18 * severity))):
        place = (rng.uniform(-0.85, 0.85), rng.uniform(-0.85, 0.85))
        _blend(picture, _spot(x, y, place, rng.uniform(0.012, 0.03 + 0.03 * severity), 3), BLOOD, 0.85)


def _membrane(
    picture: Array, x: Array, y: Array, macula: tuple[float, float], severity: float, rng: np.random.Generator
) -> None:
    turn = rng.uniform(0, np.pi)
    across = (x - macula[0]) * np.cos(turn) + (y - macula[1]) * np.sin(turn)
    folds = np.clip(np.sin(across * rng.uniform(60, 90)), 0, 1) * _spot(x, y, macula, 0.14 + 0.18 * severity)
    _blend(picture, folds, GLINT, 0.12 + 0.25 * severity)


SIGNS = {"DRU": _drusen, "CNV": _lesion, "EDE": _oedema, "HEM": _bleeding, "MEM": _membrane}
