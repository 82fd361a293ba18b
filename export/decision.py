"""Rules of artifacts, chosen on the validation set and stored in their manifests: `octc threshold`, `octc abstain`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace

from octc.bench.parity.decisions import Answered
from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Reporter
from octc.datasets.tables import rows_of
from octc.export.reference import sketch_details
from octc.export.validation import Measured, measured
from octc.schemas.common import builtins
from octc.schemas.rules import PointOptions, SetOptions, StoredRules
from octc.stats.conformal import fit_sets, patients_needed
from octc.stats.deciding import KEY, SEVERAL, UNITS, labels_of, stated_decision
from octc.stats.decision_rules import CostRule, Decision, Kind, Method, OperatingPoint, ReferRule, SetRule
from octc.stats.multilabel import thresholds_of
from octc.stats.operating import choose_point, choose_risk, choose_share, judge_costs
from octc.store.find import Found
from octc.store.rewriting import rewrite_details

REFER = "refer"  # the column of a table of costs that is no class
MOST_COST = 1e9
TRAINED = "thresholds_trained"  # of the details of a manifest: what `thresholds` was before operating points took their place
Rule = Callable[[Decision, Answered], tuple[Decision, list[str]]]


@dataclass(frozen=True)
class Ruled:
    """An artifact with its rules by unit as they are stored now, and what was said about the new ones."""

    found: Found
    rules: dict[str, Decision]
    words: tuple[str, ...]

    def to_document(self) -> StoredRules:
        return StoredRules(self.found.artifact.name, str(self.found.folder), self.rules, list(self.words))


def fit_rules(
    artifact: Any,
    options: PointOptions | SetOptions,
    *,
    data: str | Path | None = None,
    run_dir: str | Path = "runs",
    reporter: Reporter | None = None,
) -> list[Ruled]:
    """Choose decision rules on the validation set of a run and store them in its artifacts, each from its own answers.

    From then on every runtime, `octc predict`, the server and archives apply them, and `octc verify` judges them on the test
    set. A sketch of the validation set is stored too, for `octc monitor`. This changes the manifest, and so the artifact's
    digest: earlier verdicts and timings do not count for it any more.

    Args:
        artifact: an artifact, a folder of artifacts, or a run; None: the newest student run.
        options: an operating point, a share to refer or costs; or sets and a risk (fractions, not percent).
        data: root of the data set. run_dir: folder of the runs. reporter: receives messages; None: the log `octc`.

    Returns: each artifact with its rules, and sentences that describe them.

    Raises:
        OctcError: E104 an unknown class or an invalid cost; E102 rules that exclude each other, or that a multi-label artifact
            cannot have; E106 a signed artifact; and what `octc.export.validation.measured` raises.

    >>> import octc
    >>> octc.fit_rules("no-such-artifact", octc.SetOptions(sets="lac", coverage=0.9))
    Traceback (most recent call last):
    octc.core.errors.OctcError: no artifact and no run: no-such-artifact
    """
    rule = _points(options) if isinstance(options, PointOptions) else _sets(options)
    tell = reporter or LogReporter()
    everyone = measured(artifact, data, run_dir, tell)
    _check_several(everyone, options)
    if any(not one.answers["image"].known for one in everyone):
        tell.warn("OCT-W212", "patients of validation images are not known: each of those images counts as one patient")
    new = [(one, _ruled(one.found, one.answers, rule)) for one in everyone]
    made = [(one.found, ruled, _beside(one, ruled[0].get("image"))) for one, ruled in new]
    stored = []
    for found, (rules, words, unshown), details in made:
        value = {unit: builtins(one) for unit, one in rules.items()}
        artifact_now = rewrite_details(found.folder, {KEY: value or None, **details}, found.artifact, force=options.force)
        stored.append(Ruled(Found(found.folder, artifact_now), rules, tuple(words)))
        for text in unshown:
            tell.warn("OCT-W703", text, str(found.folder))
    return stored


def _check_several(everyone: Sequence[Measured], options: PointOptions | SetOptions) -> None:
    """Of several findings an image each may have an operating point; the other rules are of classes that exclude each other."""
    able = isinstance(options, PointOptions) and (options.class_name is not None or options.remove)
    named = [one.found for one in everyone if one.found.artifact.task == "multilabel"]
    if named and not able:
        text = f"{named[0].artifact.name} answers several findings an image: it can have operating points, and no other rule"
        hint = "octc threshold --class FINDING --sensitivity 98"
        raise OctcError("OCT-E102", text, hint=hint, place=str(named[0].folder))


def _beside(one: Measured, rules: Decision | None) -> dict[str, Any]:
    """What else a manifest has to say of new rules of images: for the monitor, or the thresholds of several findings."""
    artifact = one.found.artifact
    if artifact.task != "multilabel":
        return sketch_details(one, rules)
    trained = artifact.details.get(TRAINED) or artifact.details.get(SEVERAL)
    at = {point.name: point.threshold for point in (rules.points if rules is not None else ())}
    before = thresholds_of({SEVERAL: trained}, len(artifact.classes))
    chosen = [at.get(name, value) for name, value in zip(artifact.classes, before, strict=True)]
    return {SEVERAL: chosen if at else trained, TRAINED: list(before) if at else None}


def _ruled(found: Found, answers: dict[str, Answered], rule: Rule) -> tuple[dict[str, Decision], list[str], list[str]]:
    """The rules of an artifact by unit after one of them was chosen anew (units without any are left out), what is said of it,
    and what of that the sample does not show although it is stated."""
    artifact, rules, words, unshown = found.artifact, dict[str, Decision](), list[str](), list[str]()
    blank = Decision(chosen_on="validation set", split_digest=str(artifact.lineage.get("split_digest")), time_utc=utc_now())
    for unit in UNITS:
        if unit not in answers:
            continue
        before = stated_decision(artifact.details, artifact.classes, unit) or blank
        after, told = rule(replace(before, time_utc=blank.time_utc), answers[unit])
        if after.sets or after.refer or after.points or after.costs:
            rules[unit] = after
        words += [f"{one} ({unit}s)" if len(answers) > 1 else one for one in told]
        stated: list[OperatingPoint | ReferRule] = [*after.points]
        stated += [after.refer] if after.refer is not None and after.refer.target == "risk" else []
        unshown += [one.words for one in stated if not one.shown and any(one.words in line for line in told)]
        unshown += [line for line in told if after.sets is not None and line == short_words(after.sets)]
    return rules, words, unshown


def _points(options: PointOptions) -> Rule:
    def changed(before: Decision, scores: Answered) -> tuple[Decision, list[str]]:
        if options.remove:
            kept = before.refer if before.refer is not None and before.refer.target == "risk" else None
            return replace(before, points=[], costs=None, refer=kept), ["operating points, costs and the share are forgotten"]
        if options.costs is not None:
            return _with_costs(before, scores, options.costs)
        if options.refer is not None:
            found = choose_share(scores.probabilities, scores.clusters, options.refer)
            return replace(before, refer=found), [found.words]
        return _with_point(before, scores, options)

    def rule(before: Decision, scores: Answered) -> tuple[Decision, list[str]]:
        after, words = changed(before, scores)
        if after.refer is None or after.refer.target != "risk":
            return after, words
        again, more = _with_risk(after, scores, after.refer.level)  # other answers are kept now
        return again, words if again.refer == after.refer else [*words, *more]

    return rule


def _with_point(before: Decision, scores: Answered, options: PointOptions) -> tuple[Decision, list[str]]:
    name, classes = str(options.class_name), scores.classes
    if name not in classes:
        raise OctcError("OCT-E104", f"--class {name}", hint=f"one of: {', '.join(classes)}", place="--class")
    if before.costs is not None:
        raise OctcError("OCT-E102", "a table of costs decides already", hint="octc threshold --remove", place="--class")
    others = [point for point in before.points if point.name != name]
    if scores.several is None and len(others) == len(classes) - 1:
        text = f"{', '.join(point.name for point in others)} have operating points, and one class must be left"
        raise OctcError("OCT-E102", text, hint="octc threshold --remove", place="--class")
    kind: Kind = "sensitivity" if options.sensitivity is not None else "specificity"
    level = options.sensitivity if options.sensitivity is not None else options.specificity
    k = classes.index(name)
    positive = scores.positive(k)
    if not positive.any() or positive.all():
        text = f"the validation set has {'no' if not positive.any() else 'only'} {name} images"
        raise OctcError("OCT-E207", text, hint="a split with images of every class in val", place="--class")
    about = (name, kind, cast(float, level))
    point = choose_point(scores.probabilities[:, k], positive, scores.clusters, about)
    other = "specificity" if kind == "sensitivity" else "sensitivity"
    beside = "" if point.other is None else f"; {other} {100 * point.other:.1f} %"
    return replace(before, points=[*others, point]), [f"{name} from {point.threshold:.4f} on: {point.words}{beside}"]


def _with_costs(before: Decision, scores: Answered, path: Path) -> tuple[Decision, list[str]]:
    if before.points:
        text = "operating points decide already"
        raise OctcError("OCT-E102", text, hint="octc threshold --remove", place="--costs")
    found = judge_costs(scores.probabilities, scores.labels, scores.clusters, read_costs(path, scores.classes))
    return replace(before, costs=found), [cost_words(found)]


def cost_words(found: CostRule) -> str:
    """In a line: what the table comes to, beside the likeliest class."""
    limits = "" if found.limits is None else f" [{found.limits[0]:.3f}, {found.limits[1]:.3f}]"
    beside = f"the likeliest class costs {found.plain:.3f}"
    return f"mean cost {found.mean:.3f}{limits} on {found.images} images of {found.patients} patients; {beside}"


def read_costs(path: Path, classes: Sequence[str]) -> list[list[float]]:
    """A table of costs: a row for each true class, named in the first column; a column for each answer, and maybe "refer".

    Raises:
        OctcError: E209 it is no such table.
    """
    hint = f"rows and columns: {', '.join(classes)}; one column more may be {REFER}"
    try:
        rows = [row for _, row in rows_of(path, hint)]
        head, cells = [name.strip() for name in rows[0][1:]], {row[0].strip(): row[1:] for row in rows[1:]}
        wanted = [*classes, *([REFER] if REFER in head else [])]
        if sorted(head) != sorted(wanted) or sorted(cells) != sorted(classes) or len(cells) != len(rows) - 1:
            raise ValueError(f"rows {', '.join(cells)} and columns {', '.join(head)}")
        table = [[float(cells[name][head.index(column)]) for column in wanted] for name in classes]
        if not all(math.isfinite(cost) and 0 <= cost <= MOST_COST for row in table for cost in row):
            raise ValueError("a cost below 0, or none")
    except (ValueError, IndexError) as error:
        raise OctcError("OCT-E209", f"table of costs does not fit: {error}"[:300], hint=hint, place=os.fspath(path)) from error
    return table


def _sets(options: SetOptions) -> Rule:
    def rule(before: Decision, scores: Answered) -> tuple[Decision, list[str]]:
        after, words = before, list[str]()
        if options.remove:
            kept = before.refer if before.refer is not None and before.refer.target == "share" else None
            return replace(before, sets=None, refer=kept), ["sets and the risk are forgotten"]
        if options.sets is not None:
            after, words = _with_sets(after, scores, options)
        if options.risk is not None:
            after, more = _with_risk(after, scores, options.risk)
            words = [*words, *more]
        return after, words

    return rule


def _with_risk(before: Decision, scores: Answered, risk: float) -> tuple[Decision, list[str]]:
    """A risk of what operating points or costs make of the answers, where there are some."""
    answers = labels_of(scores.probabilities, before, scores.classes)
    found = choose_risk(scores.probabilities, scores.labels, scores.clusters, risk, answers=answers)
    return replace(before, refer=found), [f"kept from a confidence of {found.confidence:g} on: {found.words}"]


def _with_sets(before: Decision, scores: Answered, options: SetOptions) -> tuple[Decision, list[str]]:
    how, classes = (cast(Method, options.sets), options.coverage, not options.together), scores.classes
    patients = scores.clusters if scores.known else None
    found = fit_sets(scores.probabilities, scores.labels, patients, classes, how)
    names = classes if found.by == "class" else ("all classes",)
    rows = zip(names, found.limits, found.images, found.patients, strict=False)
    words = [
        f"{name}: in the set up to a score of {limit:.4f}, from {images} images of {people} patients"
        for name, limit, images, people in rows
    ]
    if found.short:
        words.append(short_words(found))
    return replace(before, sets=found), words


def short_words(found: SetRule) -> str:
    """Which classes have too few patients for the coverage, and what follows."""
    needed = patients_needed(found.coverage)
    named = f"{', '.join(found.short)}: too few patients for {100 * found.coverage:g} % ({needed} are needed)"
    everyone = found.by == "all" or len(found.short) == len(found.limits)
    return f"{named}, so always in the set" + (": every image will be referred" if everyone else "")
