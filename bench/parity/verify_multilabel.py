"""`octc verify` where classes do not exclude each other: golden images, then decisions by class and mAP over eyes.

The order is that of every verification: images checked, golden images reproduced, the plan written down, then the test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from octc.bench.parity.document import plan_json
from octc.bench.parity.evaluation_set import LabelledSet, check_artifact, check_images, find_set
from octc.bench.parity.inference import measure_all
from octc.bench.parity.open_artifact import Bars, Opened, Say, open_candidates, open_references, sha_of
from octc.bench.parity.plan_lock import Look, Standing, planned_options, register_use
from octc.bench.parity.references import Parties
from octc.core.errors import OctcError
from octc.core.files import canonical_json
from octc.imaging.preprocess import Float32
from octc.stats.multilabel import thresholds_of
from octc.stats.multilabel_comparison import COLUMNS, Decisions, all_finite, compare_decisions, judge_decisions
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import Part, Verdict, golden_part
from octc.store.find import Found
from octc.store.locations import run_of
from octc.store.runs import Run
from octc.store.verdicts import MARK

if TYPE_CHECKING:
    from octc.bench.parity.result import Asked, Place


@dataclass(frozen=True)
class EyeVerdict:
    """What came of one candidate. found, verdict: None where the images are not here, or the golden images differ."""

    one: Found
    sha256: str
    golden: dict[str, Any] | None
    found: Decisions | None = None
    verdict: Verdict | None = None
    error: OctcError | None = None

    @property
    def word(self) -> str:
        if self.verdict is not None:
            return self.verdict.word
        return "golden_only" if self.golden is not None and self.golden["ok"] else "fail"


@dataclass(frozen=True)
class EyeResult:
    """What came of a call. no_set: why there are no images to judge on, or None."""

    run: Run | None
    judged: tuple[EyeVerdict, ...]
    labelled: LabelledSet | None = None
    no_set: str | None = None
    standing: Standing | None = None
    reference: str | None = None
    options: ParityOptions = field(default_factory=ParityOptions)
    reference_sha256: str | None = None

    def why(self, one: EyeVerdict) -> str | None:
        """Why a verdict is exploratory, or None."""
        return None if self.standing is None or one.verdict is None else self.standing.why(one.sha256, "fp32")


def verify_eye_artifacts(asked: Asked, parties: Parties, place: Place, bars: Bars, say: Say) -> EyeResult:
    """Verify every candidate against the FP32 artifact of its run.

    Raises:
        OctcError: E104 views or a reference that this cannot do, E708 no usable reference, E216, E214, E212, E210, E309 of the
            set, E230 without images when `require_set`, and what opening raises where no candidate can be opened.
    """
    if asked.against == "teacher" or asked.tta != "none":
        text = "an artifact whose classes do not exclude each other is compared with FP32, without test-time augmentation"
        raise OctcError("OCT-E104", text, hint="leave out --against and --tta", place="octc verify")
    first = parties.candidates[0]
    run = run_of(first.folder, first.artifact, place.run_dir)
    with ExitStack() as stack:
        opened, broken = open_candidates(parties.candidates, asked.threads, stack, bars, say)
        lost = tuple(EyeVerdict(found, sha_of(found), None, error=error) for found, error in broken)
        labelled, split, why = find_set(run, asked.set_name, place.data, place.environ)
        if run is not None and asked.set_name == "test":
            asked = replace(asked, options=planned_options(run, asked.options, asked.stated))
        if labelled is None or split is None or run is None:
            if asked.require_set:
                raise OctcError("OCT-E230", f"--require-set: {why}", hint="--data DIR and --run-dir DIR of the training")
            alone = tuple(EyeVerdict(one.found, one.sha256, one.golden) for one in opened)
            return EyeResult(run, (*alone, *lost), no_set=why)
        for one in opened:
            check_artifact(one.found.artifact, split)
        with bars(f"sums of the {labelled.name} set", len(labelled.samples)) as step:
            check_images(labelled, split, step)
        good = [one for one in opened if one.golden["ok"]]
        if not good:
            return EyeResult(run, (*(EyeVerdict(o.found, o.sha256, o.golden) for o in opened), *lost), labelled)
        reference = open_references("fp32", asked.threads, parties, split, stack, bars, say)[0]["fp32"]
        look = Look(len(labelled.samples), split.digest, {"fp32": reference.sha256}, asked.options.resamples())
        standing = _register(asked, run, look, good, parties, place) if labelled.name == "test" else None
        logits = _measure(labelled, [reference, *good], bars)
        judged = [_judge(asked, labelled, one, reference, logits, standing) for one in opened]
    return EyeResult(
        run,
        (*judged, *lost),
        labelled,
        standing=standing,
        reference=reference.name,
        options=asked.options,
        reference_sha256=reference.sha256,
    )


def _register(asked: Asked, run: Run, look: Look, good: Sequence[Opened], parties: Parties, place: Place) -> Standing:
    family = {f.artifact.name: sha_of(f) for f in (*parties.candidates, *(f for f, _ in parties.absent))}
    more = {"against": ["fp32"], "tta": asked.tta}
    return register_use(run, asked.options.locked(), more, {one.name: one.sha256 for one in good}, family, place.now, look)


def _measure(labelled: LabelledSet, everyone: Sequence[Opened], bars: Bars) -> dict[str, Float32]:
    """Logits [n, 1, K] by manifest sum; every picture is decoded once for all that share a preprocessing."""
    groups: dict[bytes, dict[str, Opened]] = {}
    for one in everyone:
        groups.setdefault(canonical_json(one.found.artifact.preprocess.to_json()), {})[one.sha256] = one
    logits: dict[str, Float32] = {}
    for group in groups.values():
        preprocess = next(iter(group.values())).found.artifact.preprocess
        with bars(f"{labelled.name} set", len(labelled.samples)) as step:
            models = {sha: one.runtime for sha, one in group.items()}
            logits |= measure_all(models, preprocess, labelled.samples, labelled.root, ("identity",), step)
    return logits


def _judge(
    asked: Asked,
    labelled: LabelledSet,
    one: Opened,
    reference: Opened,
    logits: Mapping[str, Float32],
    standing: Standing | None,
) -> EyeVerdict:
    if not one.golden["ok"]:
        return EyeVerdict(one.found, one.sha256, one.golden)
    artifact, samples = one.found.artifact, labelled.samples
    extra: list[Part] = [*golden_part(bool(one.golden["ok"])), all_finite(samples, logits[one.sha256])]
    exploratory = standing is not None and standing.why(one.sha256, "fp32") is not None
    if not extra[-1].holds:
        verdict = Verdict("fail", ("not_finite",), tuple(extra), False, False, exploratory, 1)
        return EyeVerdict(one.found, one.sha256, one.golden, None, verdict)
    found = compare_decisions(
        samples,
        logits[reference.sha256],
        logits[one.sha256],
        labelled.classes,
        thresholds_of(artifact.details, len(artifact.classes)),
        truth=str(artifact.details.get("truth", "union")),
        alpha=asked.options.alpha,
        seed=asked.options.seed,
    )
    return EyeVerdict(
        one.found, one.sha256, one.golden, found, judge_decisions(found, asked.options, extra, exploratory=exploratory)
    )


def eye_document(one: EyeVerdict, result: EyeResult, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What verify.json and `--json` say of one candidate."""
    verdict = {"word": one.word, "exploratory": False} if one.verdict is None else one.verdict.to_json()
    labelled = result.labelled
    about = (
        None
        if labelled is None
        else {
            "name": labelled.name,
            "protocol": labelled.protocol,
            "note": labelled.note,
            "leakage": labelled.leakage,
            **labelled.known.to_json(),
        }
    )
    return {
        **facts,
        "artifact": one.one.artifact.name,
        "artifact_sha256": one.sha256,
        "task": "multilabel",
        "golden": one.golden,
        "reference": result.reference,
        "set": about,
        "verdict": {**verdict, "exploratory_reason": result.why(one)},
        "reference_sha256": result.reference_sha256,
        "plan": None if one.verdict is None else plan_json(result.options, _locked_at(result)),
        "against": "fp32",
        "decisions": None if one.found is None else one.found.to_json(),
        "uses_of_test": None if result.standing is None else result.standing.uses,
        "readings_of_test": None if result.standing is None else len(result.standing.log.readings),
        "error": None if one.error is None else one.error.message,
    }


def _locked_at(result: EyeResult) -> str | None:
    return None if result.standing is None else result.standing.locked_at


def eye_text(one: EyeVerdict, result: EyeResult) -> str:
    """One candidate in words: the verdict, its numbers, a row for each class."""
    name = one.one.artifact.name
    if one.error is not None:
        return f"{name}: {one.error.message}"
    mark = MARK if result.why(one) else ""
    options = result.options
    margins = "" if one.verdict is None else f" · claim {options.claim}, margin {options.margin:g} pp"
    lines = [f"{name}: {one.word.replace('_', '-')}{mark}{margins}"]
    if result.why(one):
        lines.append(f"  exploratory: {result.why(one)}")
    if one.verdict is not None:
        lines += [f"  {'✓' if part.holds else '✗'} {part.detail or part.name}" for part in one.verdict.parts]
    if one.found is not None:
        found = one.found
        lines.append(f"  decisions equal: {100 * found.agreement:.3f} % of {found.n} images x {len(found.per_class)} classes")
        lines.append("  " + " ".join(f"{column[:12]:>12}" for column in COLUMNS))
        lines += ["  " + " ".join(_cell(row[column]) for column in COLUMNS) for row in found.per_class]
    if result.labelled is not None and result.labelled.leakage != "none":
        lines.append(f"  {result.labelled.known.warning or result.labelled.leakage}")
    if result.no_set:
        lines.append(f"  golden images only: {result.no_set}")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:>12.4f}"
    return f"{'n/a' if value is None else value:>12}"


def eye_failures(result: EyeResult) -> Iterator[OctcError]:
    """What did not hold, as errors that decide the exit code."""
    for one in result.judged:
        name, place = one.one.artifact.name, str(one.one.folder)
        if one.error is not None:
            yield one.error
        elif one.golden is not None and not one.golden["ok"]:
            yield OctcError(
                "OCT-E506", f"{name}: golden outputs differ", hint="export it again: octc export --force", place=place
            )
        elif one.verdict is not None and one.verdict.exit_code:
            yield _eye_failure(one, result, name, place)


def _eye_failure(one: EyeVerdict, result: EyeResult, name: str, place: str) -> OctcError:
    assert one.verdict is not None
    why = result.why(one)
    head = f"{name}: {one.word}{MARK if why else ''}"
    part = next((part for part in one.verdict.parts if not part.holds), None)
    if part is None:
        text = f"{head}, but not equivalent: the upper limit crosses the margin"
        return OctcError("OCT-E705", text, hint="more images of more patients", place=place)
    hint = "do not use it"
    if part.word == "inconclusive":
        hint = "a test set of more images of more patients, with a --margin stated before it is looked at"
        if why and "not as locked" in why:
            hint = f"octc verify without margins of its own: the plan of {_locked_at(result)} is judged"
    return OctcError(part.code, f"{head}: {part.detail}", hint=hint, place=place)
