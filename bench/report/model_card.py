"""The model card of a report, and the facts that reporting checklists ask for. What octc cannot know is left to the maker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from octc.bench.report.collect.accuracy import CLAIMS, leading, percent, plan_words, readings_text
from octc.bench.report.collect.accuracy import pairs as claims_with_numbers
from octc.bench.report.collect.run_summary import RunSummary
from octc.bench.report.collect.speed import NOT_A_DEVICE
from octc.bench.report.feed import input_of, input_rows, inside_words, picture_words, values_words
from octc.bench.report.page import Block, Section, Table, Text
from octc.datasets.split import CLEAN, IMPORTED
from octc.stats.patients import KNOWN, PARTIAL, UNKNOWN, set_words, words_of
from octc.store.verdicts import MARK, is_exploratory, word_of

CARD_KEYS = (
    "model",
    "feed",
    "output",
    "data",
    "split",
    "training",
    "start",
    "selection",
    "test images",
    "results",
    "software",
)
OUTPUTS = {
    "multiclass": "probabilities by softmax, the largest is the label",
    "multilabel": "a probability for each class by sigmoid; an image may have several labels",
}
TO_FILL = "to be written by the maker: what it is for, for whom, and what it must not be used for"


def licences(summary: RunSummary) -> list[tuple[str, str, str]]:
    """(what, licence and whether it allows a commercial use, source) of data, start weights and teachers; then the public sets
    that share images with the data, which are no independent test of it."""
    from octc.datasets.licences import overlaps_of, terms_of

    artifact = summary.first.artifact
    terms = terms_of(artifact.lineage, artifact.model)
    shared = overlaps_of(str(artifact.lineage.get("dataset") or ""))
    return [
        *((f"{one.what} {one.name}", f"{one.licence} (commercial use {one.use}: {one.why})", one.source) for one in terms),
        *((f"images in {other} too", f"{how}: no independent test of this network", where) for other, how, where in shared),
    ]


def facts(summary: RunSummary) -> dict[str, str]:
    """What is known, as sentences, by the keys of the checklists."""
    artifact, run = summary.first.artifact, summary.facts
    lineage, pre = artifact.lineage, artifact.preprocess
    stored = run.get("recipe")
    recipe: dict[str, Any] = stored if isinstance(stored, dict) else {}
    pairs, whose = leading(summary), whose_images(summary)
    found = {
        "kind": f"classification of {_pictures(recipe)} by a neural network ({artifact.model}){_compressed(summary)}",
        "data": "; ".join([*_known("data set", lineage.get("dataset")), *_known("digest", lineage.get("data_digest"), 16)]),
        "labels": "labels as the data set gives them",
        "excluded": "images that cannot be read are refused; what was skipped is in run.json",
        "preprocess": f"{picture_words(pre)}; {inside_words(pre)}",
        "feed": _feed(summary),
        "missing": "an image has no missing predictor; unreadable images are refused, never replaced",
        "split": ", ".join([whose.split, *_known("digest", lineage.get("split_digest"), 16)]),
        "disjoint": whose.disjoint,
        "model": f"{artifact.model}, {pre.size} px, classes {', '.join(artifact.classes)}",
        "output": f"logits of {', '.join(artifact.classes)}; {OUTPUTS[artifact.task]}",
        "software": ", ".join(f"{k} {v}" for k, v in (lineage.get("versions") or {}).items()),
        "start": _start(lineage),
        "selection": _selection(recipe) if recipe else "",
        "test images": readings_text(summary),
        "compression": ", ".join(f"{f.artifact.target} {f.artifact.precision}" for f in summary.found),
        "metrics": "accuracy, sensitivity and specificity of each class and macro, AUC, ECE, Brier, agreement",
        "uncertainty": f"{whose.intervals}; McNemar; non-inferiority at a margin; Holm over classes",
        "details": "recipe, split and checksums are in the run folder and in artifact.json",
        "availability": "octc is MIT licensed; data and weights: see licences",
        "quality": "images outside the quality gate or unlike the training images get no label (octc predict)",
        "limits": limits_text(summary),
    }
    if recipe:
        taught = lineage.get("teacher_run") or "none"
        seed = run.get("seed", recipe.get("seed"))
        told = [f"recipe {recipe['name']}"] if recipe.get("name") else []
        found["training"] = ", ".join([*told, *([] if seed is None else [f"seed {seed}"]), f"teacher {taught}"])
    if pairs:
        found |= _measured(pairs[0].document)
        found["results"] = "; ".join(_result(p.title, p.document) for p in claims_with_numbers(summary))
    return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Whose:
    """What may be said of the split, of its parts, and of the intervals."""

    split: str
    disjoint: str
    intervals: str


def whose_images(summary: RunSummary) -> Whose:
    """By what is recorded of the patients; of a split that repeats a released one, that it leaks."""
    state, protocol = summary.patient_ids, str(summary.first.artifact.lineage.get("protocol") or "clean")
    protocol = str(summary.facts.get("protocol") or protocol)
    checked = "checked before anything is trained or judged"
    plain = f"no image is in two parts, {checked}; {words_of(state)}"
    found = {
        KNOWN: Whose(
            "patient-level split",
            f"no patient and no image is in two parts; {checked}",
            "Wilson, Tango and patient-bootstrap intervals",
        ),
        PARTIAL: Whose(
            "split by patient where one is known, else by image",
            plain,
            "Wilson, Tango and bootstrap intervals, clustered where a patient is known",
        ),
        UNKNOWN: Whose("split by image, patients unknown", plain, "Wilson and Tango intervals, not clustered"),
    }.get(state or "", Whose("split", plain, "Wilson and Tango intervals"))
    if protocol == CLEAN:
        return found
    if protocol == IMPORTED:
        unknown = "the network was trained elsewhere, whether it saw these images is not known"
        return replace(found, disjoint=f"{found.disjoint}; {unknown}")
    return replace(found, split=f"{protocol} split", disjoint="parts share patients or images: a released split, as it is")


def _known(what: str, value: Any, length: int | None = None) -> list[str]:
    """The words for a value that is there; nothing for one that is not."""
    return [f"{what} {str(value)[:length]}"] if value else []


def _start(lineage: dict[str, Any]) -> str:
    weights = lineage.get("weights") or {}
    if not weights.get("source"):
        return ""
    licence = weights.get("licence")
    return f"start weights: {weights['source']}" + (f" ({licence})" if licence else "")


def _pictures(recipe: dict[str, Any]) -> str:
    return "fundus photographs" if recipe.get("modality") == "fundus" else "retinal OCT B-scans"


def _compressed(summary: RunSummary) -> str:
    small = {found.artifact.precision for found in summary.found} - {"fp32"}
    return ", compressed for edge devices" if small else ""


def _selection(recipe: dict[str, Any]) -> str:
    """Which images chose the epoch."""
    if recipe.get("select", "val") != "val":
        return f"best epoch on the {recipe['select']} images: metrics on them say nothing of other images"
    return "best epoch on the validation images"


def _feed(summary: RunSummary) -> str:
    """What to feed the graphs: artifacts that take the same together."""
    taken: dict[str, list[str]] = {}
    for one in summary.found:
        found, pre = input_of(one), one.artifact.preprocess
        words = f"{found}; {values_words(None if isinstance(found, str) else found, pre)}; the picture: {picture_words(pre)}"
        taken.setdefault(words, []).append(one.artifact.name)
    return ". ".join(words if len(taken) == 1 else f"{', '.join(names)}: {words}" for words, names in taken.items())


def _measured(document: dict[str, Any]) -> dict[str, str]:
    used, plan = document["set"], document["plan"]
    apart = (
        "patients apart"
        if used.get("patient_ids") == KNOWN and used["leakage"] == "none"
        else words_of(used.get("patient_ids"))
    )
    apart = apart if used["leakage"] == "none" else used["leakage"]
    margins = f"margin of {plan['margin_pp']:g} points, {plan['class_margin_pp']:g} for a class"
    claim = CLAIMS.get(plan["claim"], str(plan["claim"]))
    mark = MARK if is_exploratory(document) else ""
    power, needed = plan.get("power"), plan.get("needed_n_80")
    wrong = document["counts"]
    return {
        "claim": f"hypothesis: the compressed model is {claim} to its reference at a {margins}{mark}",
        "counts": f"{used['name']} set: {used['n']:,} images, {set_words(used)}",
        "internal": f"{used['name']} part of the same data set, {apart}",
        "power": "" if power is None or needed is None else f"planned power {power:.3f}, needed for 0.80: {needed:,} images",
        "failures": f"regressed {wrong['lost']}, improved {wrong['gained']}, both wrong {wrong['both_wrong']}, in the report",
    }


def _result(name: str, document: dict[str, Any]) -> str:
    accuracy = document["accuracy"]
    shown = percent(accuracy["candidate"], accuracy["wilson"]["candidate"])
    claim, margins, _ = plan_words(document)
    told = f"{word_of(document)} (claim {claim}, margins {margins} points)"
    return f"{name}: accuracy {shown} %, difference {accuracy['difference_pp']:+.2f} points, {told}"


def limits_text(summary: RunSummary) -> str:
    """What these numbers do not say."""
    found = ["one data set: devices, sites and populations that are not in it were not looked at"]
    if not leading(summary) and not any(True for _ in summary.decisions()):
        found.append("not verified on labelled images here")
    if text := words_of(summary.patient_ids):
        found.append(text)
    found += sorted({w for pair in leading(summary) for w in pair.document.get("warnings", ())})
    if any(t.document["settings"]["profile"] == "quick" for t in summary.timings.values()):
        found.append("latencies of the quick profile: not comparable, not for publication")
    return "; ".join(found)


def card_section(summary: RunSummary) -> Section:
    """Intended use, licences, lineage, limits."""
    artifact, known = summary.first.artifact, facts(summary)
    lineage = {k: v for k, v in artifact.lineage.items() if isinstance(v, (str, int, float)) and v != ""}
    blocks: list[Block] = [
        Text(NOT_A_DEVICE, "lead"),
        Text(f"Intended use: {TO_FILL}.", "warn"),
        Table(("", ""), [(key, known[key]) for key in CARD_KEYS if key in known]),
        Table(("artifact", "input", "type", "shape"), input_rows(summary.found)),
        Table(("what", "licence", "source"), licences(summary)),
        Table(("lineage", ""), [(key.replace("_", " "), str(value)) for key, value in lineage.items()]),
        Table(("artifact", "sha256 of its manifest"), list(summary.checksums.items())),
        Text(f"Limits: {known['limits']}."),
    ]
    return Section("card", "Model card", blocks, {**known, "licences": licences(summary), "sums": summary.checksums})
