"""The output of `octc verify`: table, report of each candidate, documents, and errors for what did not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from octc.bench.parity.decisions import WHAT, decision_lines
from octc.bench.parity.document import SCHEMA, golden_json, plan_json
from octc.bench.parity.evaluation_set import spoken
from octc.bench.parity.eyes import eye_lines
from octc.bench.parity.render import brief_text, conditions, report_text, short_text
from octc.bench.parity.tasks.details import layer_lines, robust_lines
from octc.bench.parity.tasks.multiclass import more_would_settle
from octc.bench.parity.tasks.table import wording_of
from octc.bench.parity.words import claim_of, golden_words, head_word, uses_words
from octc.core.errors import OctcError
from octc.runtimes.layers import LayerGap, suspects
from octc.stats.deciding import KEY as DECISIONS
from octc.stats.patients import set_words
from octc.stats.task import MULTICLASS, task_of
from octc.stats.verdict import WORDS, Part
from octc.store.test_set_log import spelled
from octc.store.verdicts import MARK, is_exploratory, on_test, read_verdict

if TYPE_CHECKING:
    from octc.bench.parity.claim import ParityReport
    from octc.bench.parity.result import Judged, VerifyResult

MOST_LAYERS = 3  # of the layers that stand out, in the brief report
# of the document, whatever the table is headed with
JSON_KEYS = ("artifact", "against", "accuracy % [95 %]", "lost/gained", "difference pp", "agreement %", "verdict")
HINTS = {
    "OCT-E506": "make it again: octc export --force, or use another artifact",
    "OCT-E701": "keep more of the network in floating point: octc export --fp32 --force, then look at its logits",
    "OCT-E702": "train the student longer, or export from another run",
    "OCT-E703": "octc export --fp16, or train the student longer",
    "OCT-E704": "octc export --fp16, or train the student longer; this artifact does not replace its reference",
    "OCT-E705": "a larger patient-disjoint test set, with margins stated before it is looked at ([verify] in octc.toml)",
    "OCT-E710": "choose the rule again on more validation images: octc threshold, octc abstain",
    "OCT-E707": "octc export --fp16, or --ece-slack stated before the test set is looked at",
    # reason of an inconclusive part that no larger set of the same kind settles -> what does
    "self_comparison": "name another artifact than the reference: octc verify RUN",
    "one_cluster": "a test set of several patients: an interval over one patient does not exist",
    "single_class": "a test set with images of every class",
    "empty_class": "a test set with images of {name}",
}


def columns(result: VerifyResult) -> tuple[str, ...]:
    """Headings of the table, by the task of the artifacts."""
    task = task_of(result.judged[0].found.artifact.task)
    metric, changes = wording_of(task).columns
    return ("artifact", "against", metric, changes, "difference pp", "agreement %", "verdict")


def summary(result: VerifyResult) -> Iterator[tuple[str, ...]]:
    """Rows of the table: every reference once, then every claim."""
    seen = set()
    for report in _all(result.judged):
        key = (report.reference.name, report.reference.role, report.tta, report.set.unit)
        if report.comparison is not None and key not in seen:
            seen.add(key)
            name = f"{report.reference.role} {report.reference.name}{_views(report)}"
            yield (name, "", wording_of(report.task).cells(report)[0], "", "", "", "reference")
    for one in result.judged:
        for report in _reports(one):
            yield _row(report)
        if one.error is not None:
            yield (one.found.artifact.name, "", "", "", "", "", one.error.code)
        elif not one.claims:
            yield (one.found.artifact.name, "", "", "", "", "", one.word.replace("_", " "))


def title(result: VerifyResult) -> str:
    """The conditions of every verdict in the table."""
    return next((conditions(report) for report in _all(result.judged)), "golden images only")


def _all(judged: Sequence[Judged]) -> Iterator[ParityReport]:
    for one in judged:
        yield from _reports(one)


def _reports(one: Judged) -> Iterator[ParityReport]:
    """Every comparison of a candidate: its claims, the first one on eyes, further views."""
    yield from one.claims
    if one.eyes is not None and one.eyes.report is not None:
        yield one.eyes.report
    yield from one.tta


def _views(report: ParityReport) -> str:
    what = "" if report.set.unit == "images" else f", {report.set.unit}"
    return what if report.tta == "none" else f" TTA {report.tta}{what}"


def _row(report: ParityReport) -> tuple[str, ...]:
    word = head_word(report).replace("NON-INFERIOR", "non-inferior").lower()
    head = (f"{report.candidate.name}{_views(report)}", f"{report.reference.role} {report.reference.name}")
    if report.comparison is None:
        return (*head, "null", "", "", "", word)
    return (*head, *wording_of(report.task).cells(report)[1:], word)


def text_of(one: Judged, result: VerifyResult, *, brief: bool = False) -> str:
    """The report of a candidate: the headline's claims, those with test-time augmentation, worse pictures, layers.

    brief: about ten lines of it; where there are other candidates, a few of each.
    """
    if one.claims:
        first, *others = (*one.claims, *one.tta)
        if brief:
            spell = brief_text if len(result.judged) == 1 else short_text
            return "\n".join(
                [
                    spell(first), *_eyes(one), *_rules(one), *map(short_text, others), *list(_robust(one))[-1:],
                    *list(_where(one))[:MOST_LAYERS],
                ]
            )  # fmt: skip
        told = "\n".join([report_text(first), *_eyes(one), *_rules(one), *_robust(one), *_where(one)])
        return "\n\n".join([told, *map(report_text, others)])
    name = one.found.artifact.name
    if one.golden is None:
        return f"NOT OPENED: {name}: {one.error.message if one.error else ''}"
    if one.word == "fail":
        head = f"FAIL: {name}: golden outputs differ on this machine: {golden_words(one.golden)}; nothing else was run"
        return "\n".join([head, *list(_where(one))[: MOST_LAYERS if brief else None]])
    lines = [
        f"GOLDEN ONLY: {name}: {golden_words(one.golden)}, as exported",
        f"  not measured here: accuracy and everything else that needs labelled images: {result.no_set}",
    ]
    return "\n".join([*lines, *_elsewhere(one)])


def _eyes(one: Judged) -> Iterator[str]:
    return iter(()) if one.eyes is None else eye_lines(one.eyes)


def _rules(one: Judged) -> Iterator[str]:
    for found in one.decisions:
        yield from decision_lines(found)
    if DECISIONS in one.found.artifact.details and one.claims[0].set.name == "select":
        yield "  rules        not judged on the validation set, which they were chosen on"


def _robust(one: Judged) -> Iterator[str]:
    if one.robustness is not None:
        yield from robust_lines(one.robustness, one.found.artifact.name, one.claims[0].options.margin)


def _where(one: Judged) -> Iterator[str]:
    """In which layers a candidate that did not pass differs from its FP32 reference."""
    if one.layers:
        yield from layer_lines(one.layers, suspects(one.layers))
    elif one.no_layers is not None:
        yield f"  layers       not looked at: {one.no_layers}"


def _layers(one: Judged) -> dict[str, Any]:
    """For the document: every layer, and the names of those that stand out."""

    def spelled(gap: LayerGap) -> dict[str, Any]:
        return {"name": gap.name, "error": gap.error, "added": gap.added, "gain": gap.gain}

    return {
        "layers": [spelled(gap) for gap in one.layers],
        "layers_reason": one.no_layers,
        "suspects": [gap.name for gap in suspects(one.layers)],
    }


def _elsewhere(one: Judged) -> Iterator[str]:
    """Where the artifact was verified on labelled images, from the verify.json that travels with it."""
    before = read_verdict(one.found.folder, one.sha256) or {}
    document = next(iter(on_test(before)), None) if before else None
    if document is None:
        yield "  it was not verified on a test set elsewhere either: octc verify, where the run and its images are"
        return
    machine = document.get("machine") or {}
    where = f"{machine.get('cpu_model')} at {document.get('time_utc')}"
    plan, used = document["plan"], document["set"]
    conditions = f"margin {plan['margin_pp']:g} pp, alpha {plan['alpha']:g}, n={used.get('n')}, {spoken(used['name'])}"
    word = f"{document['verdict']['word']}{MARK if is_exploratory(document) else ''}"
    yield f"  measured elsewhere ({where}): {word} · {conditions}, {set_words(used)}"


def document(one: Judged, result: VerifyResult) -> dict[str, Any]:
    """docs/parity.md, section 16, of one candidate."""
    make = _of_classes if task_of(one.found.artifact.task) is MULTICLASS else _of_decisions
    return make(one, result)


def _of_classes(one: Judged, result: VerifyResult) -> dict[str, Any]:
    """The first claim, with the other claims and the rows of other views beside it."""
    artifact = one.found.artifact
    worse = None if one.robustness is None else one.robustness.to_json()
    more = {**result.facts, "artifact": artifact.name, "claims": [], "tta": [], "robustness": worse, **_layers(one)}
    more["box"] = None if one.box is None else one.box.to_json()
    if one.claims:
        first, *others = [report.to_json() for report in one.claims]
        more["rules"] = [found.to_json() for found in one.decisions]
        more["eyes"] = None if one.eyes is None else one.eyes.to_json()
        return {**first, **more, "claims": others, "tta": [report.to_json() for report in one.tta]}
    reasons = [] if one.word == "golden_only" else ["golden" if one.error is None else one.error.code]
    return {
        "schema_version": SCHEMA,
        "command": "verify",
        **more,
        "candidate": {
            "name": artifact.name,
            "artifact_sha256": one.sha256,
            "role": artifact.role,
            "precision": artifact.precision,
        },
        "set": None,
        "set_reason": result.no_set,
        "golden": golden_json(one.golden),
        "verdict": {
            "word": one.word,
            "reasons": reasons,
            "exploratory": False,
            "exploratory_reason": None,
            "exit_code": one.exit_code,
        },
        "warnings": [],
    }


def _of_decisions(one: Judged, result: VerifyResult) -> dict[str, Any]:
    """Where classes do not exclude each other there is one claim, against FP32, about decisions and mAP."""
    report = next(iter(one.claims), None)
    verdict = {"word": one.word, "exploratory": False} if report is None else report.verdict.to_json()
    labelled, use = result.labelled, result.use
    about = None
    if labelled is not None:
        told = {name: getattr(labelled, name) for name in ("name", "protocol", "note", "leakage")}
        about = {**told, "n": len(labelled.samples), "patients": labelled.known.count, **labelled.known.to_json()}
    return {
        **result.facts,
        "artifact": one.found.artifact.name,
        "artifact_sha256": one.sha256,
        "task": "multilabel",
        "golden": one.golden,
        "reference": None if report is None else report.reference.name,
        "set": about,
        "verdict": {**verdict, "exploratory_reason": None if report is None else report.set.exploratory},
        "reference_sha256": None if report is None else report.reference.artifact_sha256,
        "plan": None if report is None else plan_json(report.options, report.set.locked_at),
        "against": "fp32",
        "decisions": None if report is None or report.comparison is None else report.comparison.to_json(),
        "rules": [found.to_json() for found in one.decisions],
        **_layers(one),
        "uses_of_test": None if use is None else use.uses,
        "readings_of_test": None if use is None else len(use.log.readings),
        "error": None if one.error is None else one.error.message,
        "box": None if one.box is None else one.box.to_json(),
    }


def failures(result: VerifyResult) -> Iterator[OctcError]:
    """What did not hold, one error for each candidate and claim of the headline; a withheld claim is none of its own."""
    for one in result.judged:
        if one.error is not None:
            yield one.error
        elif not one.claims and one.word == "fail" and one.golden is not None:
            text = f"{one.found.artifact.name}: golden outputs differ on this machine: {golden_words(one.golden)}"
            text += "".join(f"; layer {gap.name} stands out" for gap in suspects(one.layers)[:1])
            yield OctcError("OCT-E506", text, hint=HINTS["OCT-E506"], place=str(one.found.folder))
        for report in one.claims:
            if report.exit_code and not report.withheld:
                yield failure_of(report, str(one.found.folder))
        if one.eyes is not None and one.eyes.exit_code and one.eyes.report is not None:
            yield failure_of(one.eyes.report, str(one.found.folder))
        for found in one.decisions:
            for promise in found.broken:
                what = f"{WHAT[promise.what]} of {promise.name} {100 * (promise.found.value or 0):.2f} %"
                text = f"{one.found.artifact.name}: {what}, promised {100 * promise.level:g} % ({found.unit}s)"
                yield OctcError("OCT-E710", text, hint=HINTS["OCT-E710"], place=str(one.found.folder))


def failure_of(report: ParityReport, place: str, hints: Mapping[str, str] = HINTS) -> OctcError:
    """The worst part that does not hold; under two one-sided tests also a claim that is non-inferior only."""
    open_parts = [part for part in report.verdict.parts if not part.holds]
    if not open_parts:
        mark = MARK if report.set.exploratory else ""
        text = f"{claim_of(report)}: non-inferior{mark}, but not equivalent: the upper limit crosses the margin"
        return OctcError("OCT-E705", text, hint=_hint("OCT-E705", report, hints), place=place)
    worst = min(open_parts, key=lambda part: WORDS.index(part.word))
    mark = MARK if report.set.exploratory else ""
    text = f"{claim_of(report)}: {report.word}{mark} ({', '.join(report.verdict.reasons)})"
    return OctcError(worst.code, text, hint=_hint(worst.code, report, hints, worst), place=place, why=worst.detail)


def _hint(code: str, report: ParityReport, hints: Mapping[str, str], worst: Part | None = None) -> str:
    if code != "OCT-E705":
        return hints[code]
    if report.set.exploratory and report.set.locked_at is not None and "not as locked" in report.set.exploratory:
        return f"octc verify without margins: the plan of {report.set.locked_at} is judged, and this one is listed beside it"
    if worst is not None and worst.reason in hints:
        return hints[worst.reason]
    if worst is not None and worst.detail == "empty_class":
        return hints["empty_class"].format(name=worst.reason.removeprefix("class:"))
    needed = _needed(report)
    if needed is not None and needed > report.n:
        what = report.set.unit
        return f"{hints[code]}; about {needed:,} {what} would settle it ({needed - report.n:,} more than now)"
    return hints[code]


def _needed(report: ParityReport) -> int | None:
    """Images in all that would settle the claim at these margins, or None where another thing than their number is wanting."""
    if report.comparison is None or not report.task.exclusive or not more_would_settle(report):
        return None
    open_parts = {part.reason for part in report.verdict.parts if not part.holds}
    plan = report.comparison.plan.needed_80
    return plan if open_parts & {"interval_crosses_margin", "underpowered_plan"} else None


def uses_line(result: VerifyResult) -> str | None:
    """How often the test set was used, as a sentence."""
    if result.use is None:
        return None
    return f"{uses_words(result.use.uses, len(result.use.log.readings))}: {spelled(result.use.log)}"
