"""Golden images first: does this machine decode, resize and compute as the one where the artifact was made?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL

from octc.core.errors import OctcError
from octc.core.targets import row_of
from octc.imaging.decode import decode_image
from octc.imaging.preprocess import Float32, Preprocess, UInt8
from octc.stats.metrics import kl_scores, log_softmax
from octc.stats.multilabel import thresholds_of
from octc.store.artifacts import Artifact, Golden, read_golden

LEAST = 4  # golden images: of fewer, one answer to all says nothing


@dataclass(frozen=True)
class Tolerance:
    """A row of the table. near_ties: a flip of two classes closer than twice the tolerance does not count."""

    id: str
    delta_over_s: float
    kl_mean: float
    agreement: float
    near_ties: bool


# Method: docs/parity.md, section 13. Golden logits are those of the torch network that the file was made from.
TOLERANCES = {
    "K1": Tolerance("K1", 1e-4, 1e-6, 1.0, near_ties=True),
    "K2": Tolerance("K2", 1e-4, 1e-6, 1.0, near_ties=True),
    "K3": Tolerance("K3", 1e-3, 1e-5, 1.0, near_ties=True),
    "K4": Tolerance("K4", 1e-2, 1e-4, 0.999, near_ties=False),
    "K7": Tolerance("K7", 5e-2, 5e-4, 0.999, near_ties=False),
    "K10": Tolerance("K10", 0.25, 5e-3, 0.995, near_ties=False),  # information only: the verdict decides
}


def tolerance_of(target: str, precision: str, *, whole_set: bool = False) -> Tolerance | None:
    """The row for golden images, or for a whole set; None where the target has no such artifact."""
    return TOLERANCES.get(row_of(target, precision, whole_set=whole_set) or "")


@dataclass(frozen=True)
class GoldenReport:
    """How an engine's logits compare with the recorded ones.

    Attributes:
        delta_over_s: largest difference of a logit over the mean range of the reference logits; None when not finite.
        kl_mean: mean KL divergence from the reference, nats; None when not finite.
        agreement: share of images with the same class. near_ties: flips that the row of the table lets pass.
        tolerance_id, tolerance: the row, and its limit of delta_over_s.
    """

    images: int
    delta_over_s: float | None
    kl_mean: float | None
    agreement: float
    near_ties: int
    tolerance_id: str
    tolerance: float
    ok: bool


def check_golden(
    folder: Path, artifact: Artifact, runtime: Callable[[UInt8], Float32], golden: Golden | None = None
) -> GoldenReport:
    """The golden images of an artifact: decoded, resized and computed as where it was made? golden: if they are read already.

    Raises:
        OctcError: E508 pictures become other bytes here, and what `read_golden` and `replay` raise; an engine that computes
            something else is in the report (`require_golden`).
    """
    return replay(runtime, read_prepared(folder, artifact, golden), artifact)


def read_prepared(folder: Path, artifact: Artifact, golden: Golden | None = None) -> Golden:
    """The golden images of an artifact, which this machine decodes and resizes as the one where they were made; else E508.
    golden: if they are read already."""
    golden = read_golden(folder, artifact) if golden is None else golden
    check_input(golden, artifact.preprocess)
    check_shapes(golden, artifact)
    return golden


def replay(runtime: Callable[[UInt8], Float32], golden: Golden, artifact: Artifact) -> GoldenReport:
    """Run the golden images and compare with their recorded logits (E502 when they cannot belong to this artifact)."""
    check_shapes(golden, artifact)
    return judge(runtime(golden.inputs), golden, artifact)


def check_shapes(golden: Golden, artifact: Artifact) -> None:
    """Refuse golden images and logits that cannot belong to this artifact (E502)."""
    pre, classes = artifact.preprocess, len(artifact.classes)
    if golden.inputs.shape[1:] != (pre.channels, pre.size, pre.size) or golden.logits.shape[1] != classes:
        shapes = f"{list(golden.inputs.shape)} and {list(golden.logits.shape)}"
        text = f"golden images and logits have shapes {shapes}, {artifact.name} takes {pre.size} px and knows {classes} classes"
        raise OctcError("OCT-E502", text, hint="do not use this artifact; copy it again from where it was made")


def judge(found: Float32, golden: Golden, artifact: Artifact) -> GoldenReport:
    """What an engine made of all golden images, float32 [N, K], against their recorded logits."""
    row = tolerance_of(artifact.target, artifact.precision)
    assert row is not None  # read_artifact refuses such a pair
    if artifact.task == "multilabel":
        return compare_decisions(found, golden.logits, row, _thresholds(artifact))
    return compare_logits(found, golden.logits, row)


def _thresholds(artifact: Artifact) -> tuple[float, ...]:
    try:
        return thresholds_of(artifact.details, len(artifact.classes))
    except (ValueError, TypeError) as error:
        text = f"thresholds in the manifest are not valid: {error}"
        raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json") from error


def compare_decisions(found: Float32, reference: Float32, row: Tolerance, thresholds: Sequence[float]) -> GoldenReport:
    """The same where classes do not exclude each other: agreement is over the decisions of every class of every image, a
    decision whose reference logit lies within twice the tolerance of its threshold is excused, and KL is that of Bernoullis."""
    ours, theirs = found.astype(np.float64), reference.astype(np.float64)
    p = np.clip(np.asarray(thresholds, np.float64), 1e-9, 1 - 1e-9)
    cuts = np.log(p / (1 - p))
    same = (ours >= cuts) == (theirs >= cuts)
    agreement = float(same.mean())
    if not np.isfinite(ours).all():
        return GoldenReport(len(theirs), None, None, agreement, 0, row.id, row.delta_over_s, ok=False)
    spread = float(np.ptp(theirs, axis=1).mean())
    excused = int((~same & (np.abs(theirs - cuts) < 2 * row.delta_over_s * spread)).sum())
    largest = float(np.abs(ours - theirs).max())
    delta = largest / spread if spread > 0 else (0.0 if largest == 0 else None)
    pairs = [np.stack([np.zeros_like(values), values], axis=-1).reshape(-1, 2) for values in (theirs, ours)]
    kl = float(kl_scores(*(log_softmax(pair) for pair in pairs)).mean())
    agrees = (int(same.sum()) + excused) / same.size >= row.agreement
    ok = delta is not None and delta <= row.delta_over_s and kl <= row.kl_mean and agrees
    return GoldenReport(len(theirs), delta, kl, agreement, excused, row.id, row.delta_over_s, ok)


def compare_logits(found: Float32, reference: Float32, row: Tolerance) -> GoldenReport:
    """Logits [N, K] against reference logits [N, K] by a row of the table."""
    ours, theirs = found.astype(np.float64), reference.astype(np.float64)
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    agreement = float(same.mean())
    if not np.isfinite(ours).all():
        return GoldenReport(len(theirs), None, None, agreement, 0, row.id, row.delta_over_s, ok=False)
    spread = float(np.ptp(theirs, axis=1).mean())
    ordered = np.sort(theirs, axis=1)
    tied = ordered[:, -1] - ordered[:, -2] < 2 * row.delta_over_s * spread
    excused = int((~same & tied).sum()) if row.near_ties else 0
    largest = float(np.abs(ours - theirs).max())
    delta = largest / spread if spread > 0 else (0.0 if largest == 0 else None)
    kl = float(kl_scores(log_softmax(theirs), log_softmax(ours)).mean())
    agrees = float((int(same.sum()) + excused) / len(same)) >= row.agreement
    ok = delta is not None and delta <= row.delta_over_s and kl <= row.kl_mean and agrees
    return GoldenReport(len(theirs), delta, kl, agreement, excused, row.id, row.delta_over_s, ok)


def same_answer(golden: Golden, artifact: Artifact) -> str | None:
    """What a network answers to every golden image alike, in words; None where it tells some of them apart.

    Golden images are of every class where the artifact comes from labelled ones, so one answer to all of them is a network that
    learned nothing, or lost it.
    """
    logits = golden.logits.astype(np.float64)
    if len(logits) < LEAST or not np.isfinite(logits).all():
        return None
    if artifact.task == "multilabel":
        p = np.clip(np.asarray(_thresholds(artifact), np.float64), 1e-9, 1 - 1e-9)
        decided = logits >= np.log(p / (1 - p))
        names = [name for name, on in zip(artifact.classes, decided[0], strict=True) if on]
        return (", ".join(names) or "no class") if (decided == decided[0]).all() else None
    answers = logits.argmax(axis=1)
    return artifact.classes[int(answers[0])] if (answers == answers[0]).all() else None


def words_of_same(answer: str, count: int) -> str:
    """`same_answer` as a warning (OCT-W809)."""
    return f"this network gives all of its {count} golden images the same answer: {answer}"


def require_golden(report: GoldenReport, artifact: Artifact) -> None:
    """Refuse to go on with an engine that computes something else (E506)."""
    if report.ok:
        return
    delta = "not finite" if report.delta_over_s is None else f"{report.delta_over_s:.2g}"
    kl = "not finite" if report.kl_mean is None else f"{report.kl_mean:.2g}"
    text = (
        f"{artifact.name}: golden outputs differ on this machine: delta over s {delta} (limit {report.tolerance:g}, "
        f"{report.tolerance_id}), KL {kl} (limit {TOLERANCES[report.tolerance_id].kl_mean:g}), "
        f"{100 * report.agreement:.4g} % of decisions agree"
    )
    raise OctcError("OCT-E506", text, hint="make it again: octc export --force, or use another artifact (octc verify)")


def check_input(golden: Golden, preprocess: Preprocess) -> None:
    """Decode and resize the recorded picture; other bytes than recorded are refused (E508).

    Raises:
        OctcError: E508, with how many pixels differ; and what decoding raises (E201, E202...).
    """
    picture = decode_image(golden.source_png.tobytes(), "golden.npz  source_png").image
    ours = preprocess.prepare(picture)
    if ours.shape != golden.source_input.shape:
        text = f"golden picture becomes {list(ours.shape)} here, {list(golden.source_input.shape)} was recorded"
    elif not np.array_equal(ours, golden.source_input):
        away = np.abs(ours.astype(np.int16) - golden.source_input.astype(np.int16))
        text = f"decoding or resizing differs here: {int((away > 0).sum())} of {away.size} values, by up to {int(away.max())}"
    else:
        return
    hint = "install the Pillow version that artifact.json names under lineage.versions, or export again here"
    raise OctcError("OCT-E508", text, hint=hint, place="golden.npz", why=f"Pillow {PIL.__version__} is installed")
