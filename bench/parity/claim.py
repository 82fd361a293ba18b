"""From two sets of predictions to a report: join by image, check, compare, judge (the method of docs/parity.md)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.bench.parity.document import report_json
from octc.bench.parity.inference import Records
from octc.bench.parity.render import report_text
from octc.bench.parity.tasks.table import wording_of
from octc.bench.parity.words import golden_words
from octc.core.errors import OctcError, shorten
from octc.core.files import canonical_json
from octc.imaging.preprocess import Float32
from octc.runtimes.golden import Tolerance, tolerance_of
from octc.stats.cluster_bootstrap import cluster_index, named_images
from octc.stats.comparison import SCORES, Known, nonfinite
from octc.stats.multilabel_comparison import LabelledImage
from octc.stats.outcome import outcome_of
from octc.stats.patients import PatientIds, Patients, patient_ids
from octc.stats.sorted_ids import SortedIds
from octc.stats.subgroups import Subgroup, subgroups
from octc.stats.task import MULTICLASS, Answers, Task
from octc.stats.temperature import Temperature
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import Part, Verdict, finite_part, golden_part, judge_nonfinite

IDS = 65_536  # of a checksum, spelled at once


def row_of(candidate: Side, against: str) -> Tolerance | None:
    """Row of docs/parity.md, section 13, for a candidate against its FP32 reference; None where the table has no such pair."""
    return tolerance_of(candidate.target, candidate.precision, whole_set=True) if against == "fp32" else None


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        artifact_sha256: of the manifest; model_sha256: of the main file.
        facts: of the runtime and the machine, as they were when it ran.
        source: "measured now", or when the records that were read back were measured.
        temperature: what the logits were divided by when it was exported (it is folded into the last layer), else 1.
    """

    name: str
    artifact_sha256: str
    precision: str
    target: str = "onnx"
    model_sha256: str = ""
    role: str = "student"
    model: str = ""
    runtime: str = ""
    facts: tuple[tuple[str, Any], ...] = ()
    preprocess_sha256: str = ""
    source: str = "measured now"
    temperature: float = 1.0


@dataclass(frozen=True)
class SetInfo:
    """The set: its name ("test" or "select"), the protocol in words, how often test was used (reads that could tell something
    new) and read (all of them), when the plan was locked.

    `exploratory` says why a verdict is no claim that was planned; `note` is printed beside every number of this data set.
    `unit`: what the answers are of, "images" or "eyes".
    """

    name: str = "test"
    protocol: str = ""
    uses_of_test: int | None = None
    readings_of_test: int | None = None
    locked_at: str | None = None
    exploratory: str | None = None
    note: str = ""
    leakage: str = "not_checked"
    unit: str = "images"


@dataclass(frozen=True)
class ParityReport:
    """One claim: candidate against reference on one set with one kind of views.

    `comparison` is that of the task (`Comparison` or `Decisions`), None when the candidate's logits are not finite;
    `withheld` says why the claim was not tested although its numbers are there (a claim before it in the fixed order was not
    shown); `verdict` is then still what the parts say.
    """

    task: Task
    against: str
    reference: Side
    candidate: Side
    set: SetInfo
    options: ParityOptions
    n: int
    known: PatientIds
    ids_sha256: str
    tta: str
    verdict: Verdict
    comparison: Any
    golden: Mapping[str, Any] | None
    not_finite: tuple[str, ...] = ()
    withheld: str | None = None
    warnings: tuple[str, ...] = ()
    subgroups: tuple[Subgroup, ...] = ()

    @property
    def patients(self) -> int | None:
        """Patients of the set that are known; None without any."""
        return self.known.count

    @property
    def word(self) -> str:
        """The verdict's word, or "not_tested"."""
        return self.verdict.word if self.withheld is None else "not_tested"

    @property
    def exit_code(self) -> int:
        return self.verdict.exit_code if self.withheld is None else 1

    def backend(self) -> dict[str, Any] | None:
        """Row of docs/parity.md, section 13, on the whole set: information, it gates only on the golden images."""
        row = row_of(self.candidate, self.against)
        if self.comparison is None or row is None or not self.task.exclusive:
            return None
        found = self.comparison.agreement
        delta = found["dlogit_max"] / found["s"] if found["s"] > 0 else None
        excused = (found["near_tie_flips"] or 0) if row.near_ties else 0
        same = (found["count"] + excused) / self.n
        ok = delta is not None and delta <= row.delta_over_s and found["kl_mean"] <= row.kl_mean and same >= row.agreement
        return {"pair_id": row.id, "delta_over_s": delta, "kl_mean": found["kl_mean"], "agreement": found["rate"], "ok": ok}

    def to_json(self) -> dict[str, Any]:
        """docs/parity.md, section 16; percent and percentage points; null with a reason instead of NaN."""
        return report_json(self)

    def to_text(self) -> str:
        """The verdict first, then what it rests on."""
        return report_text(self)


def _mismatch(message: str, hint: str = "compare records of the same set") -> OctcError:
    return OctcError("OCT-E706", message, hint=hint)


def join(reference: Records, candidate: Records) -> Records:
    """The candidate in the order of the reference.

    Raises:
        OctcError: E706 for duplicate ids, different sets of ids (up to ten of each side are named), labels or views.
    """
    for name, one in (("reference", reference), ("candidate", candidate)):
        if twice := sorted(i for i, count in Counter(one.ids).items() if count > 1):
            raise _mismatch(f"image ids occur twice in the {name}: {shorten(twice)}")
    if set(reference.ids) != set(candidate.ids):
        alone = [
            shorten(sorted(set(a.ids) - set(b.ids))) or "none" for a, b in ((reference, candidate), (candidate, reference))
        ]
        raise _mismatch(f"image sets differ: only in the reference: {alone[0]}; only in the candidate: {alone[1]}")
    joined = candidate.in_order(reference.ids)
    wrong = [i for i, a, b in zip(reference.ids, reference.labels, joined.labels, strict=True) if a != b]
    if wrong:
        raise _mismatch(f"labels differ for {len(wrong)} images: {shorten(wrong)}")
    if reference.views != candidate.views:
        text = f"views differ: reference {', '.join(reference.views)}; candidate {', '.join(candidate.views)}"
        raise _mismatch(text, "use the same test-time augmentation for both")
    return joined


@dataclass(frozen=True)
class Joined:
    """Logits of both on the same images, in the order of their ids.

    Attributes:
        labels: index into the classes [n]. patients: ids, None where unknown; or numbers of them, -1 where unknown.
        reference, candidate: float32 [n, views, K].
    """

    ids: SortedIds
    labels: Sequence[int] | npt.NDArray[np.int64]
    patients: Patients
    reference: Float32
    candidate: Float32


def _check_sides(reference: Records, candidate: Records, classes: Sequence[str], against: str) -> None:
    for name, one in (("reference", reference), ("candidate", candidate)):
        if one.logits.shape[2] != len(classes):
            text = f"the {name} gives {one.logits.shape[2]} classes, the set has {len(classes)}"
            raise OctcError("OCT-E309", text, hint="compare models of the same classes")
    if against == "fp32" and reference.preprocess != candidate.preprocess:
        raise _mismatch("preprocessing differs between the artifact and its FP32 reference", "export both from one run")


def _check_finite(joined: Joined) -> None:
    if bad := nonfinite(joined.ids, joined.reference):
        text = f"the reference gives NaN or infinity for {len(bad)} images: {shorten(bad)}"
        raise OctcError("OCT-E708", text, hint="repair or replace the reference artifact")


def _warnings(joined: Joined, report: ParityReport, same: bool) -> list[str]:
    found = []
    if whose := patient_ids(joined.patients).warning:
        found.append(whose)
    repeated = 0 if report.against == "table" else sum("#" in one for one in joined.ids)  # keys of tables are any text
    if repeated:
        found.append(f"{repeated} images repeat the content of another one")
    if same:
        found.append("identical artifacts: a comparison with itself shows nothing")
    if report.set.exploratory:
        found.append(f"exploratory: {report.set.exploratory}")
    return [*found, *(wording_of(report.task).warnings(report) if report.comparison is not None else ())]


@dataclass(frozen=True)
class Image:
    """An image of records alone: one label, no eye."""

    path: str
    label: int
    patient: str | None
    targets: tuple[int, ...] | None = None
    eye: str | None = None


@dataclass(frozen=True)
class Context:
    """The context of a comparison, besides its records.

    Attributes:
        against: "fp32", "teacher" (which may have another preprocessing), or "table" of prediction tables.
        golden: `GoldenReport` of the candidate as a dictionary (`ok` decides), or None when it was not replayed.
        select: `Comparison.facts` of the same pair on the validation set, for discordance and correlation of the plan.
        temperatures: of "reference" and "candidate", fitted on the validation set.
        groups: column -> image id -> value: the same comparison on each of these parts.
        details: of the candidate's manifest; images: by id, in the order of the set (None: as the records have them).
        form: what the logits stand for (`octc.stats.comparison.Known`).
    """

    task: Task = MULTICLASS
    against: str = "fp32"
    sides: tuple[Side, Side] | None = None
    info: SetInfo = field(default_factory=SetInfo)
    tta: str = "none"
    golden: Mapping[str, Any] | None = None
    select: Mapping[str, Any] | None = None
    temperatures: Mapping[str, Temperature] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, LabelledImage] | None = None
    form: str = SCORES


def compare(
    reference: Records,
    candidate: Records,
    classes: Sequence[str],
    options: ParityOptions,
    context: Context | None = None,
) -> ParityReport:
    """Compare two records and judge, by the rules of their task.

    Raises:
        OctcError: E706 different sets, E309 different classes, E708 the reference is at chance or not finite.
    """
    context = context or Context()
    joined = join(reference, candidate)
    _check_sides(reference, joined, classes, context.against)
    order = sorted(reference.ids)
    reference, joined = (one.in_order(order) for one in (reference, joined))
    sides = context.sides or (Side("reference", reference.artifact, "fp32"), Side("candidate", candidate.artifact, "int8"))
    sides = (
        replace(sides[0], preprocess_sha256=reference.preprocess_sha256),
        replace(sides[1], preprocess_sha256=candidate.preprocess_sha256),
    )
    same = bool(reference.artifact) and reference.artifact == candidate.artifact
    both = Joined(SortedIds(order), reference.labels, reference.patients, reference.logits, joined.logits)
    return compare_joined(both, classes, options, replace(context, sides=sides), same=same)


def compare_joined(
    joined: Joined, classes: Sequence[str], options: ParityOptions, context: Context, *, same: bool = False
) -> ParityReport:
    """Compare the two that `context.sides` names, and judge. same: whether they are known to be one.

    Raises:
        OctcError: E708 the reference is at chance or not finite.
    """
    if context.sides is None:
        raise ValueError("context.sides has to name the two")
    r_side, c_side = context.sides
    _check_finite(joined)
    same = same or (bool(r_side.model_sha256) and r_side.model_sha256 == c_side.model_sha256)
    golden, exploratory = context.golden, context.info.exploratory is not None
    extra = [] if golden is None else golden_part(bool(golden["ok"]), golden_words(golden))
    if same:
        text = "reference and candidate are one artifact"
        extra.append(Part("two artifacts", False, "inconclusive", "self_comparison", text, "OCT-E705"))
    bad = nonfinite(joined.ids, joined.candidate)
    if bad:
        comparison, verdict = None, judge_nonfinite(bad, len(joined.ids), extra, exploratory)
    else:
        extra.insert(0, finite_part((), len(joined.ids)))
        row = row_of(c_side, context.against)
        known = Known(
            context.select,
            None if row is None else row.delta_over_s,
            context.temperatures,
            (r_side.temperature, c_side.temperature),
            context.form,
        )
        comparison = context.task.compare(_answers(joined, classes, context, known), options)
        verdict = context.task.judge(comparison, options, extra, exploratory)
    report = ParityReport(
        task=context.task,
        against=context.against,
        reference=r_side,
        candidate=c_side,
        set=context.info,
        options=options,
        n=len(joined.ids),
        known=patient_ids(joined.patients),
        ids_sha256=ids_sha256(joined.ids),
        tta=context.tta,
        verdict=verdict,
        comparison=comparison,
        golden=golden,
        not_finite=tuple(bad),
        subgroups=() if bad else _subgroups(joined, context.groups, options),
    )
    return replace(report, warnings=tuple(_warnings(joined, report, same)))


def ids_sha256(ids: Sequence[str]) -> str:
    """Checksum of the canonical JSON of a list of ids, which is made a part at a time."""
    digest = hashlib.sha256(b"[")
    for start in range(0, len(ids), IDS):
        part = canonical_json(list(ids[start : start + IDS]))[1:-1]
        digest.update(b"," + part if start else part)
    digest.update(b"]")
    return digest.hexdigest()


def _answers(joined: Joined, classes: Sequence[str], context: Context, known: Known) -> Answers:
    """The logits of both beside their images; in the order of the set where classes do not exclude each other."""
    ids, logits = joined.ids, (joined.reference, joined.candidate)
    if context.task.exclusive:
        columns = joined.labels, joined.patients
        return Answers(ids, (), *logits, classes, context.details, known, columns)
    if context.images is None:
        rows = zip(ids, joined.labels, joined.patients, strict=True)
        images: list[LabelledImage] = [Image(*row) for row in rows]
    else:
        images = list(context.images.values())
        where = {one: i for i, one in enumerate(ids)}
        order = [where[one] for one in context.images]
        logits = logits[0][order], logits[1][order]
    return Answers(ids, images, *logits, classes, context.details, known)


def _subgroups(joined: Joined, groups: Mapping[str, Mapping[str, str | None]], options: ParityOptions) -> tuple[Subgroup, ...]:
    """The comparison on each subgroup; columns with a single value are left out."""
    if not groups:
        return ()
    columns = {name: [values.get(one) for one in joined.ids] for name, values in groups.items()}
    predicted = outcome_of(joined.reference).predictions, outcome_of(joined.candidate).predictions
    kept = {name: values for name, values in columns.items() if len(set(values)) > 1}
    clusters, named = cluster_index(joined.patients), named_images(joined.patients)
    return subgroups(np.asarray(joined.labels, np.int64), predicted, clusters, kept, options, named)


def withhold(report: ParityReport, why: str) -> ParityReport:
    """The report without a verdict, because an earlier claim was not shown (docs/parity.md, section 4.3)."""
    return replace(report, withheld=why)
