"""Eyes, judged as images are: the answers that two artifacts make of the B-scans of each volume, paired, clustered by patient.

Each side makes its answer in its own way (`details.aggregation`), from every B-scan of the volume; nothing is left out for
being unlike the training images, as nothing is of images (docs/parity.md, section 19). No network runs again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from octc.bench.parity.claim import Context, ParityReport, Side, compare
from octc.bench.parity.evaluation_set import LabelledSet
from octc.bench.parity.inference import Records
from octc.bench.parity.words import rate, span
from octc.core.errors import OctcError
from octc.datasets.base import Sample
from octc.datasets.eyes import EyeOf, eye_answers, eyes_among
from octc.stats.aggregation import LEAST, Aggregation
from octc.stats.comparison import nonfinite
from octc.stats.metrics import combine_views
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import pp

EYES = "eyes"  # what the answers of a claim are of, where they are not of images


@dataclass(frozen=True)
class EyeVerdict:
    """The claim on eyes.

    Attributes:
        report: the comparison and its verdict, None where there is none; reason: why, else "".
        eyes: that were judged. left_out: volumes that were not: no label of the eye, or B-scans that are not in the set.
        ways: how reference and candidate make an answer of B-scans.
    """

    report: ParityReport | None
    reason: str
    eyes: int
    left_out: int
    ways: tuple[Aggregation, Aggregation]

    @property
    def exit_code(self) -> int:
        """1 where eyes are shown to be worse; that they are too few to tell fails nothing, the claim is on images."""
        return 1 if self.report is not None and self.report.word in ("inferior", "fail") else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "eyes": self.eyes,
            "left_out": self.left_out,
            "aggregation": dict(zip(("reference", "candidate"), (way.to_json() for way in self.ways), strict=True)),
            "claim": None if self.report is None else self.report.to_json(),
            "reason": self.reason or None,
        }


def judge_eyes(
    labelled: LabelledSet,
    records: tuple[Records, Records],
    ways: tuple[Aggregation, Aggregation],
    options: ParityOptions,
    context: Context,
) -> EyeVerdict | None:
    """The same claim on the eyes of a set; None where no B-scan of a volume is in it.

    records: of reference and candidate, one view, in the order of the set.
    """
    if not context.task.exclusive or not any(sample.scan is not None for sample in labelled.samples):
        return None
    eyes, left_out = eyes_among(labelled.samples)
    if not eyes:
        return EyeVerdict(None, "no volume has a label of its eye and all its B-scans in this set", 0, left_out, ways)
    if nonfinite(records[1].ids, records[1].logits):
        return EyeVerdict(None, "outputs of the artifact are not finite", len(eyes), left_out, ways)
    made = tuple(_of_eyes(eyes, labelled.samples, one, way) for one, way in zip(records, ways, strict=True))
    info = replace(context.info, unit=EYES)
    about = replace(
        context, info=info, golden=None, select=None, groups={}, temperatures={}, images=None, sides=_plain(context)
    )
    try:
        report = compare(made[0], made[1], labelled.classes, options, about)
    except OctcError as error:
        if error.code != "OCT-E708":
            raise
        return EyeVerdict(None, error.message, len(eyes), left_out, ways)
    return EyeVerdict(report, "", len(eyes), left_out, ways)


def _plain(context: Context) -> tuple[Side, Side] | None:
    """The sides without their temperatures: an eye's probabilities are no logits that one was folded into."""
    return (
        None
        if context.sides is None
        else (replace(context.sides[0], temperature=1.0), replace(context.sides[1], temperature=1.0))
    )


def _of_eyes(eyes: Sequence[EyeOf], samples: Sequence[Sample], records: Records, how: Aggregation) -> Records:
    """Records of eyes from those of their B-scans: the logarithm of their probabilities, float32 [eyes, 1, K]."""
    probabilities = combine_views(records.logits)[0]
    answers = eye_answers(eyes, probabilities, how)
    return replace(
        records,
        ids=tuple(eye.id for eye in eyes),
        labels=tuple(eye.label for eye in eyes),
        patients=tuple(samples[eye.samples[0]].patient for eye in eyes),
        logits=np.log(np.maximum(answers, LEAST)).astype(np.float32)[:, None],
        views=("identity",),
    )


def eye_lines(found: EyeVerdict) -> Iterator[str]:
    """What is said of eyes beside what is said of B-scans."""
    left = f"; {found.left_out} volumes without a label of their eye, or not whole, are left out" if found.left_out else ""
    report = found.report
    if report is None or report.comparison is None:
        yield f"  eyes         not judged: {found.reason}{left}"
        return
    one, alpha = report.comparison, report.options.alpha
    people = report.known.words
    by = None if one.pair.patients is None else one.pair.deff
    before, after = (rate(one.hits(side), one.n, alpha, by) for side in ("reference", "candidate"))
    yield f"  eyes         n={one.n} eyes, {people}: accuracy {before} -> {after}"
    word = report.word.replace("_", "-")
    yield (
        f"               {pp(one.pair.difference)} {span(one.pair.deciding)} pp ({one.pair.decided_by}), regressed "
        f"{one.pair.lost}, improved {one.pair.gained}: {word} within {report.options.margin:g} pp"
    )
    ways = [f"{way.words}, {f'chosen on {way.chosen_on}' if way.chosen_on else 'the default'}" for way in found.ways]
    yield f"               answer of an eye: {ways[0] if ways[0] == ways[1] else ' -> '.join(ways)}{left}"
