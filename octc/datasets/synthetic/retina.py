"""Model of the retina: the layers of a patient's retina and the effects of each disease. Lengths are in micrometres."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# name, thickness beside the fovea, thickness in its centre, reflectivity (of full white); from the vitreous to Bruch's membrane
LAYERS = (
    ("nerve fibres", 26.0, 2.0, 0.60),
    ("ganglion and inner plexiform", 82.0, 6.0, 0.40),
    ("inner nuclear", 38.0, 4.0, 0.26),
    ("outer plexiform", 26.0, 8.0, 0.39),
    ("outer nuclear", 76.0, 104.0, 0.20),
    ("external limiting membrane", 7.0, 7.0, 0.34),
    ("myoid", 15.0, 17.0, 0.24),
    ("ellipsoid", 15.0, 17.0, 0.80),
    ("outer segments", 20.0, 28.0, 0.42),
    ("subretinal fluid", 0.0, 0.0, 0.07),
    ("subretinal material", 0.0, 0.0, 0.62),
    ("pigment epithelium", 20.0, 20.0, 0.93),
    ("sub-RPE deposit", 0.0, 0.0, 0.46),
    ("Bruch's membrane", 5.0, 5.0, 0.55),
)
ROW = {name: row for row, (name, *_) in enumerate(LAYERS)}
SWELLS = ("inner nuclear", "outer plexiform", "outer nuclear")
VITREOUS, CHOROID = 0.055, 0.47


@dataclass(frozen=True)
class Eye:
    """A patient's eye and the scanner. Lengths in micrometres; `scale`: pixels (of a 512 px wide image) per micrometre.

    `severity` in (0, 1): stage of the patient's disease; small values are intentionally subtle.
    """

    layers: Array  # [layers] factor of each layer's thickness
    pit_width: float
    pit_depth: float
    nasal: float  # asymmetry of the nerve fibre layer, signed
    curvature: float
    choroid: float
    vessels: int
    severity: float
    scale: float
    across: float  # micrometres per pixel column
    gain: float
    gamma: float
    speckle: float
    floor: float
    sharpness: float


@dataclass(frozen=True)
class Findings:
    """Deviations from a healthy retina, per column (micrometres, or 0 to 1) or as lists."""

    deposit: Array  # pigment epithelium lifted by this much
    fluid: Array
    material: Array
    swelling: Array
    broken: Array  # 0 to 1: disruption of the outer bands
    ragged: Array  # jitter of the pigment epithelium
    cysts: list[tuple[float, float, float, float]] = field(default_factory=list)  # column, depth 0..1, half axes across, along
    foci: list[tuple[float, float, float]] = field(default_factory=list)  # column, depth 0..1, radius

    def plus(self, **changes: object) -> Findings:
        return replace(self, **changes)  # type: ignore[arg-type]


def draw_eye(rng: np.random.Generator) -> Eye:
    """Draw a patient's anatomy and scanner at random."""
    return Eye(
        layers=np.clip(rng.normal(1.0, 0.10, len(LAYERS)), 0.7, 1.35),
        pit_width=rng.uniform(520, 900),
        pit_depth=rng.uniform(0.75, 1.0),
        nasal=rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 1.0),
        curvature=rng.normal(0.0, 1.0) * 0.010 + 0.006,
        choroid=rng.uniform(110, 340),
        vessels=int(rng.integers(2, 8)),
        severity=float(rng.beta(1.3, 1.5)),
        scale=rng.uniform(0.22, 0.31),
        across=rng.uniform(9.5, 13.0),
        gain=rng.uniform(0.72, 1.18),
        gamma=rng.uniform(0.75, 1.15),
        speckle=rng.uniform(0.13, 0.34),
        floor=rng.uniform(0.04, 0.16),
        sharpness=rng.uniform(0.0, 1.0),
    )


def draw_findings(kind: str, eye: Eye, x: Array, rng: np.random.Generator) -> Findings:
    """Normal variation and the disease `kind` at about the eye's severity. `x` [width]: micrometres from the fovea."""
    zero = np.zeros_like(x)
    healthy = Findings(zero, zero, zero, zero, zero, zero)
    severity = float(np.clip(eye.severity + rng.normal(0, 0.12), 0.02, 1.0))
    varied = _foci(_small_deposits(healthy, x, rng), x, rng, int(rng.integers(0, 3)))
    return DISEASES[kind](varied, eye, x, severity, rng)


def _bump(x: Array, centre: float, half: float, power: float = 2.0) -> Array:
    bump: Array = np.exp(-(np.abs((x - centre) / half) ** power))
    return bump


def _centre(x: Array, rng: np.random.Generator) -> float:
    return float(rng.normal(0.0, 0.35) * 0.55 * x[-1])


def _small_deposits(base: Findings, x: Array, rng: np.random.Generator) -> Findings:
    """A few small hard drusen in one of three healthy eyes, so that detecting a bump is not sufficient for a diagnosis."""
    if rng.random() > 0.34:
        return base
    deposit = base.deposit
    for _ in range(int(rng.integers(1, 4))):
        deposit = np.maximum(deposit, rng.uniform(5, 17) * _bump(x, rng.uniform(x[0], x[-1]), rng.uniform(25, 60)))
    return base.plus(deposit=deposit)


def _foci(base: Findings, x: Array, rng: np.random.Generator, count: int) -> Findings:
    spots = [(rng.uniform(x[0], x[-1]), rng.uniform(0.15, 0.85), rng.uniform(5, 12)) for _ in range(count)]
    return base.plus(foci=[*base.foci, *spots])


def _normal(base: Findings, eye: Eye, x: Array, severity: float, rng: np.random.Generator) -> Findings:
    return base


def _drusen(base: Findings, eye: Eye, x: Array, severity: float, rng: np.random.Generator) -> Findings:
    """Mounds under the pigment epithelium: few and low, to many and confluent."""
    deposit = base.deposit
    middle = _centre(x, rng)
    for _ in range(1 + int(rng.poisson(1.0 + 7.0 * severity))):
        height = rng.uniform(14, 26) + severity * rng.gamma(2.0, 22.0)
        half = rng.uniform(45, 90) + severity * rng.uniform(0, 160)
        deposit = np.maximum(deposit, min(height, 150.0) * _bump(x, middle + rng.normal(0, 900), half, rng.uniform(2.0, 3.0)))
    broken = np.clip(deposit / 140.0, 0, 0.6)
    return base.plus(deposit=deposit, broken=broken, ragged=0.03 * deposit)


def _cnv(base: Findings, eye: Eye, x: Array, severity: float, rng: np.random.Generator) -> Findings:
    """A lesion at the pigment epithelium: detachment, bright material above it, fluid around it, broken outer bands."""
    if rng.random() < 0.4:
        base = _drusen(base, eye, x, 0.5 * severity, rng)
    middle, half = _centre(x, rng), rng.uniform(180, 380) + severity * rng.uniform(100, 900)
    lesion = _bump(x, middle, half, rng.uniform(2.0, 4.0))
    under, over = rng.dirichlet([1.0, 1.0]) * (35 + 290 * severity * rng.uniform(0.5, 1.0))
    wave = np.interp(x, np.linspace(x[0], x[-1], 26), rng.uniform(0.35, 1.0, 26))
    fluid_middle = middle + rng.choice([-1.0, 1.0]) * half * rng.uniform(0.5, 1.3)
    fluid = rng.uniform(0, 1) ** 0.7 * (20 + 170 * severity) * _bump(x, fluid_middle, half * rng.uniform(0.6, 1.2), 3.0)
    done = base.plus(
        deposit=np.maximum(base.deposit, under * lesion * wave),
        material=over * lesion * wave,
        fluid=np.where(fluid > 6, fluid, 0.0),
        broken=np.maximum(base.broken, np.clip(rng.uniform(0.45, 1.0) * lesion, 0, 1)),
        ragged=np.maximum(base.ragged, rng.uniform(4, 16) * lesion),
        swelling=severity * rng.uniform(0, 90) * lesion,
    )
    cysts = int(rng.poisson(2.0 * severity)) if rng.random() < 0.4 else 0
    return _foci(_cysts(done, x, rng, cysts, middle, half, severity), x, rng, int(rng.poisson(4 * severity)))


def _dme(base: Findings, eye: Eye, x: Array, severity: float, rng: np.random.Generator) -> Findings:
    """Thickened retina with cystoid spaces and bright foci; now and then fluid under the fovea. The epithelium stays flat."""
    middle, half = _centre(x, rng), rng.uniform(450, 800) + severity * rng.uniform(0, 1200)
    swelling = (12 + 260 * severity * rng.uniform(0.4, 1.0)) * _bump(x, middle, half, rng.uniform(2.0, 3.0))
    fluid = 120 * severity * rng.uniform(0, 1) * _bump(x, 0.3 * middle, rng.uniform(300, 700)) * (rng.random() < 0.2)
    done = base.plus(swelling=swelling, fluid=np.where(fluid > 6, fluid, 0.0))
    done = _cysts(done, x, rng, 1 + int(rng.poisson(1.0 + 13.0 * severity)), middle, 0.6 * half, severity)
    return _foci(done, x, rng, int(rng.poisson(1 + 10 * severity)))


def _cysts(
    base: Findings, x: Array, rng: np.random.Generator, count: int, middle: float, half: float, severity: float
) -> Findings:
    cysts = [
        (
            middle + rng.normal(0, half),
            float(np.clip(rng.normal(0.54, 0.13), 0.25, 0.8)),
            rng.uniform(18, 42) + severity * rng.uniform(0, 110),
            rng.uniform(11, 24) + severity * rng.uniform(0, 80),
        )
        for _ in range(count)
    ]
    return base.plus(cysts=[*base.cysts, *cysts])


DISEASES = {"CNV": _cnv, "DME": _dme, "DRUSEN": _drusen, "NORMAL": _normal}
