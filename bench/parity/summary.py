"""What `octc verify` says: a table, a report for each candidate, the documents, and what did not hold with its mend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from octc.bench.parity.claim import ParityReport
from octc.bench.parity.document import SCHEMA, golden_json
from octc.bench.parity.render import (
    brief_text,
    claim_of,
    conditions,
    golden_words,
    head_word,
    more_would_settle,
    percents,
    report_text,
    short_text,
    span,
    uses_words,
)
from octc.bench.parity.render_details import layer_lines, robust_lines
from octc.bench.parity.result import Judged, Result
from octc.core.errors import OctcError
from octc.runtimes.layers import LayerGap, suspects
from octc.stats.comparison import Comparison
from octc.stats.patients import set_words
from octc.stats.proportions import wilson
from octc.stats.verdict import WORDS, Part, pp
from octc.store.test_set_log import spelled
from octc.store.verdicts import MARK, is_exploratory, on_test, read_verdict

MOST_LAYERS = 3  # of the layers that stand out, in the brief report
COLUMNS = ("artifact", "against", "accuracy % [95 %]", "lost/gained", "difference pp", "agreement %", "verdict")
MENDS = {
    "OCT-E506": "make it again: octc export --force, or use another artifact",
    "OCT-E701": "keep more of the network in floating point: octc export --fp32 --force, then look at its logits",
    "OCT-E702": "train the student longer, or export from another run",
    "OCT-E703": "octc export --fp16, or train the student longer",
    "OCT-E704": "octc export --fp16, or train the student longer; this artifact does not stand in for its reference",
    "OCT-E705": "a larger patient-disjoint test set, with margins stated before it is looked at ([verify] in octc.toml)",
    "OCT-E707": "octc export --fp16, or --ece-slack stated before the test set is looked at",
}


def summary(result: Result) -> Iterator[tuple[str, ...]]:
    """Rows of COLUMNS: every reference once, then every claim."""
    seen = set()
    for report in _all(result.judged):
        comparison, key = report.comparison, (report.reference.name, report.reference.role, report.tta)
        if comparison is not None and key not in seen:
            seen.add(key)
            name = f"{report.reference.role} {report.reference.name}{_views(report)}"
            yield (name, "", _accuracy(comparison, "reference", report), "", "", "", "reference")
    for one in result.judged:
        for report in (*one.claims, *one.tta):
            yield _row(report)
        if one.error is not None:
            yield (one.found.artifact.name, "", "", "", "", "", one.error.code)
        elif not one.claims:
            yield (one.found.artifact.name, "", "", "", "", "", one.word.replace("_", " "))


def title(result: Result) -> str:
    """The conditions of every verdict in the table."""
    return next((conditions(report) for report in _all(result.judged)), "golden images only")


def _all(judged: Sequence[Judged]) -> Iterator[ParityReport]:
    for one in judged:
        yield from (*one.claims, *one.tta)


def _views(report: ParityReport) -> str:
    return "" if report.tta == "none" else f" TTA {report.tta}"


def _accuracy(comparison: Comparison, model: str, report: ParityReport) -> str:
    hits, n = comparison.hits(model), comparison.n
    limits = wilson(hits, n, report.options.alpha)
    return f"{100 * hits / n:.2f} {'' if limits is None else percents(limits)}"


def _row(report: ParityReport) -> tuple[str, ...]:
    one = report.comparison
    word = head_word(report).replace("NON-INFERIOR", "non-inferior").lower()
    head = (f"{report.candidate.name}{_views(report)}", f"{report.reference.role} {report.reference.name}")
    if one is None:
        return (*head, "null", "", "", "", word)
    pair = one.pair
    return (
        *head,
        _accuracy(one, "candidate", report),
        f"{pair.lost}/{pair.gained}",
        f"{pp(pair.difference)} {span(pair.deciding)}",
        f"{100 * one.agreement['rate']:.2f}",
        word,
    )


def text_of(one: Judged, result: Result, *, brief: bool = False) -> str:
    """The report of a candidate: the headline's claims, those with test-time augmentation, worse pictures, layers.

    brief: about ten lines of it; where other candidates stand beside it, a few of each.
    """
    if one.claims:
        first, *others = (*one.claims, *one.tta)
        if brief:
            spell = brief_text if len(result.judged) == 1 else short_text
            return "\n".join(
                [spell(first), *map(short_text, others), *list(_robust(one))[-1:], *list(_where(one))[:MOST_LAYERS]]
            )
        told = "\n".join([report_text(first), *_robust(one), *_where(one)])
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


def _robust(one: Judged) -> Iterator[str]:
    if one.robustness is not None:
        yield from robust_lines(one.robustness, one.found.artifact.name, one.claims[0].options.margin)


def _where(one: Judged) -> Iterator[str]:
    """In which layers a candidate that did not pass departs from its FP32 reference."""
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
    conditions = f"margin {plan['margin_pp']:g} pp, alpha {plan['alpha']:g}, n={used['n']}, {used['name']} set"
    word = f"{document['verdict']['word']}{MARK if is_exploratory(document) else ''}"
    yield f"  measured elsewhere ({where}): {word} · {conditions}, {set_words(used)}"


def document(one: Judged, result: Result, facts: dict[str, Any]) -> dict[str, Any]:
    """docs/parity.md, section 16: the first claim, with the other claims and the rows of other views beside it.

    facts: run_id, time_utc, octc, machine.
    """
    artifact = one.found.artifact
    worse = None if one.robustness is None else one.robustness.to_json()
    more = {**facts, "artifact": artifact.name, "claims": [], "tta": [], "robustness": worse, **_layers(one)}
    if one.claims:
        first, *others = [report.to_json() for report in one.claims]
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


def failures(result: Result) -> Iterator[OctcError]:
    """What did not hold, one error for each candidate and claim of the headline; a withheld claim is none of its own."""
    for one in result.judged:
        if one.error is not None:
            yield one.error
        elif not one.claims and one.word == "fail" and one.golden is not None:
            text = f"{one.found.artifact.name}: golden outputs differ on this machine: {golden_words(one.golden)}"
            text += "".join(f"; layer {gap.name} stands out" for gap in suspects(one.layers)[:1])
            yield OctcError("OCT-E506", text, hint=MENDS["OCT-E506"], place=str(one.found.folder))
        for report in one.claims:
            if report.exit_code and not report.withheld:
                yield _failure(report, one)


def _failure(report: ParityReport, one: Judged) -> OctcError:
    """The worst part that does not hold; under two one-sided tests also a claim that is non-inferior only."""
    open_parts = [part for part in report.verdict.parts if not part.holds]
    if not open_parts:
        mark = MARK if report.set.exploratory else ""
        text = f"{claim_of(report)}: non-inferior{mark}, but not equivalent: the upper limit crosses the margin"
        return OctcError("OCT-E705", text, hint=_hint("OCT-E705", report), place=str(one.found.folder))
    worst = min(open_parts, key=lambda part: WORDS.index(part.word))
    mark = MARK if report.set.exploratory else ""
    text = f"{claim_of(report)}: {report.word}{mark} ({', '.join(report.verdict.reasons)})"
    return OctcError(worst.code, text, hint=_hint(worst.code, report, worst), place=str(one.found.folder), why=worst.detail)


# reason of an inconclusive part that no larger set of the same kind settles -> what does
OTHER_MENDS = {
    "self_comparison": "name another artifact than the reference: octc verify RUN",
    "one_cluster": "a test set of several patients: an interval over one patient does not exist",
    "single_class": "a test set with images of every class",
}


def _hint(code: str, report: ParityReport, worst: Part | None = None) -> str:
    if code != "OCT-E705":
        return MENDS[code]
    if report.set.exploratory and report.set.locked_at is not None and "not as locked" in report.set.exploratory:
        return (
            f"octc verify without margins of its own: the plan of {report.set.locked_at} is judged, and this stands beside it"
        )
    if worst is not None and worst.reason in OTHER_MENDS:
        return OTHER_MENDS[worst.reason]
    if worst is not None and worst.detail == "empty_class":
        return f"a test set with images of {worst.reason.removeprefix('class:')}"
    needed = _needed(report)
    if needed is not None and needed > report.n:
        return f"{MENDS[code]}; about {needed:,} images would settle it ({needed - report.n:,} more than now)"
    return MENDS[code]


def _needed(report: ParityReport) -> int | None:
    """Images in all that would settle the claim at these margins, or None where another thing than their number is wanting."""
    if report.comparison is None or not more_would_settle(report):
        return None
    open_parts = {part.reason for part in report.verdict.parts if not part.holds}
    plan = report.comparison.plan.needed_80
    return plan if open_parts & {"interval_crosses_margin", "underpowered_plan"} else None


def uses_line(result: Result) -> str | None:
    """How often the test set was used, as a sentence."""
    if result.standing is None:
        return None
    return f"{uses_words(result.standing.uses, len(result.standing.log.readings))}: {spelled(result.standing.log)}"
