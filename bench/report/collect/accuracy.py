"""Sections of a report about the answers of the models: verdicts, confusion, ROC, calibration, classes, images that flipped."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octc.bench.report.collect.run_summary import ModelAnswers, RunSummary, answers_of
from octc.bench.report.figures.comparisons import Difference, forest_figure, reliability_bins, reliability_figure
from octc.bench.report.page import Block, Photo, Plot, Section, Table, Text
from octc.figures.plots import confusion_figure, roc_figure
from octc.stats.aggregation import Aggregation
from octc.stats.patients import PARTIAL, UNKNOWN, set_words, words_of
from octc.stats.roc import roc
from octc.store.test_set_log import spelled
from octc.store.verdicts import MARK, is_exploratory, word_of

MOST_FLIPPED = 40
CHANGES = {"lost": "regressed", "gained": "improved", "both wrong": "both wrong"}  # as documents spell them -> in words
Show = Callable[[str], bytes | None]  # path of an image in the data set -> PNG bytes


@dataclass(frozen=True)
class Pair:
    """A candidate and the reference of one claim: names for people, the claim's document, and the answers of both (or None)."""

    name: str
    reference: str
    document: dict[str, Any]
    candidate_answers: ModelAnswers | None
    reference_answers: ModelAnswers | None

    @property
    def title(self) -> str:
        """Who against whom; an exploratory claim with its margin."""
        mark = f"{MARK}, margin {self.document['plan']['margin_pp']:g} pp" if is_exploratory(self.document) else ""
        return f"{self.name} against {self.reference}{mark}"


def pairs(summary: RunSummary) -> Iterator[Pair]:
    """Every claim that has numbers, INT8 first."""
    for found in summary.found:
        name = found.artifact.name
        for document in summary.claims(name):
            reference = document["reference"]
            sha256 = str(reference.get("artifact_sha256"))
            label = f"{reference.get('role')} {reference.get('name')}"
            yield Pair(name, label, document, answers_of(summary, summary.checksums[name]), answers_of(summary, sha256))


def leading(summary: RunSummary) -> list[Pair]:
    """The first claim of each artifact."""
    found: dict[str, Pair] = {}
    for pair in pairs(summary):
        found.setdefault(pair.name, pair)
    return list(found.values())


def percent(value: float | None, limits: Any = None) -> str:
    """ "96.37 [94.86, 97.44]"; "null" for nothing."""
    if value is None:
        return "null"
    return f"{value:.2f}" if not limits else f"{value:.2f} [{limits[0]:.2f}, {limits[1]:.2f}]"


def verdict_section(summary: RunSummary) -> Section:
    """Every claim with its interval, its margin and what does not hold."""
    rows, notes = [], list[Block]()
    for pair in pairs(summary):
        document = pair.document
        accuracy = document["accuracy"]
        rows.append(
            (
                pair.name,
                pair.reference,
                percent(accuracy["reference"]),
                percent(accuracy["candidate"]),
                f"{accuracy['difference_pp']:+.2f} {_limits(accuracy['deciding'])}",
                f"{document['counts']['lost']}/{document['counts']['gained']}",
                f"{100 * document['agreement']['rate']:.2f}",
                *plan_words(document),
                word_of(document),
            )
        )
        if found := open_rows(document["verdict"]["parts"]):
            notes += [Text(f"Not shown of {pair.title}:", "warn"), Table(("rule", "found"), found)]
    for name, known in summary.verdicts.items():
        if known["verdict"]["word"] == "fail" and not known.get("accuracy"):
            why = ", ".join(known["verdict"]["reasons"])
            text = f"{name}: FAIL before any labelled image was run ({why}): what it computes is not what was exported"
            notes.append(Text(text, "warn"))
    several = [Text(_decision(name, document)) for name, document in summary.decisions()]
    if not rows and several:
        for name, document in summary.decisions():
            if found := open_rows(document["verdict"].get("parts", ())):
                notes += [Text(f"Not shown of {name}:", "warn"), Table(("rule", "found"), found)]
        blocks_: list[Block] = [*several, *notes, Text(_sentence(readings_text(summary)))]
        return Section("verdicts", "Verdicts", blocks_, {name: document["verdict"] for name, document in summary.decisions()})
    if not rows:
        return Section("verdicts", "Verdicts", [*notes, Text("Not verified on labelled images here: octc verify", "warn")])
    columns = (
        "artifact",
        "against",
        "reference %",
        "artifact %",
        "difference pp [95 %]",
        "regressed/improved",
        "agreement %",
        "claim",
        "margin, class margin, pp",
        "alpha",
        "verdict",
    )
    document = next(pairs(summary)).document
    blocks: list[Block] = [Text(_conditions(summary, document)), Table(columns, rows), *_eyes(summary), *notes]
    return Section("verdicts", "Verdicts", blocks, {p.name: p.document["verdict"] for p in leading(summary)})


def _eyes(summary: RunSummary) -> Iterator[Block]:
    """The first claim of each artifact on eyes, where its images are B-scans of volumes."""
    rows, left = [], list[str]()
    for pair in leading(summary):
        found = pair.document.get("eyes")
        if not found:
            continue
        claim = found["claim"]
        if claim is None or not claim.get("accuracy"):
            left.append(f"{pair.name}: eyes are not judged: {found['reason']}.")
            continue
        accuracy, way = claim["accuracy"], Aggregation.from_json(found["aggregation"]["candidate"])
        chosen = f"chosen on the {way.chosen_on}" if way.chosen_on else "the default"
        sides = (percent(accuracy[side], accuracy["wilson"][side]) for side in ("reference", "candidate"))
        difference = f"{accuracy['difference_pp']:+.2f} {_limits(accuracy['deciding'])}"
        about = f"{claim['set']['n']} eyes, {set_words(claim['set'])}"
        rows.append((pair.name, pair.reference, *sides, difference, about, f"{way.words}, {chosen}", word_of(claim)))
    columns = (
        "artifact", "against", "reference, eyes %", "artifact, eyes %", "difference pp [95 %]", "of", "answer of an eye",
        "verdict",
    )  # fmt: skip
    if rows:
        yield Table(
            columns, rows, "Eyes: one answer of the B-scans of each volume, judged beside the B-scans; it does not decide."
        )
    yield from (Text(text, "note") for text in left)


def open_rows(parts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(rule, what was found) of every rule that does not hold; rules about classes with one finding are one row."""
    found: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        if not part["holds"]:
            head, _, name = str(part["name"]).partition(" ")
            of_class = head in ("class", "harm") and str(part["reason"]) in (f"class:{name}", f"harm:{name}")
            detail = "no image of this class" if part["detail"] == "empty_class" else str(part["detail"] or part["reason"])
            found.setdefault((head if of_class else "", detail), []).append(name if of_class else str(part["name"]))
    return [(f"{head} {', '.join(names)}".strip(), detail) for (head, detail), names in found.items()]


def _decision(name: str, document: dict[str, Any]) -> str:
    """A verdict on several labels an image, as a sentence."""
    found, plan = document["decisions"], document.get("plan")
    head = f"{name} against {document['reference']}: {word_of(document)}"
    if plan is not None:
        head += f", claim {CLAIMS.get(plan['claim'], plan['claim'])}, margin {plan['margin_pp']:g} pp, alpha {plan['alpha']:g}"
    before, after = (percent(found["map"][side]) for side in ("reference", "candidate"))
    return f"{head}; decisions equal {100 * found['agreement']:.2f} %, mAP {before} to {after}."


CLAIMS = {"ni": "non-inferior", "tost": "equivalent"}


def plan_words(document: dict[str, Any]) -> tuple[str, str, str]:
    """Claim, margins and level of one verdict."""
    plan = document["plan"]
    claim = CLAIMS.get(plan["claim"], str(plan["claim"]))
    return claim, f"{plan['margin_pp']:g}, {plan['class_margin_pp']:g}", f"{plan['alpha']:g}"


def _conditions(summary: RunSummary, document: dict[str, Any]) -> str:
    used = document["set"]
    return (
        f"{used['n']:,} images of the {used['name']} set, {set_words(used)}; claim, margins and level are in each row, "
        f"(exploratory) is a verdict that was not planned. {_clustered(used)} "
        f"{_sentence(readings_text(summary))}"
    )


def readings_text(summary: RunSummary) -> str:
    """How often the test images were read, by whom and when, from the run's log; else what a verdict tells of it."""
    if summary.log is not None:
        return spelled(summary.log)
    known = [one for documents in summary.stored.values() for one in documents if one.get("set")]
    counts = [(str(one.get("time_utc")), one["set"].get("readings_of_test")) for one in known]
    told = max((pair for pair in counts if pair[1] is not None), default=None)
    if told is None:
        return "how often the test images were read is not known here: the log stays with the run"
    return f"by {told[0]} the test images had been read {told[1]} times; later readings are not known here, the log is not here"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _clustered(used: dict[str, Any]) -> str:
    if used["patients"] is None:
        text = words_of(UNKNOWN)
    elif used.get("patient_ids") == PARTIAL:
        text = f"{words_of(PARTIAL)}; the others are clustered by patient where that is wider"
    else:
        return "Intervals are over patients where they are wider."
    return _sentence(text)


def _limits(limits: Any) -> str:
    return "" if not limits else f"[{limits[0]:+.2f}, {limits[1]:+.2f}]"


def confusion_section(summary: RunSummary) -> Section:
    """Confusion matrices of every reference and every artifact."""
    blocks: list[Block] = []
    seen, data = set(), {}
    for pair in pairs(summary):
        for name, side in ((pair.reference, "reference"), (pair.name, "candidate")):
            if name not in seen:
                seen.add(name)
                matrix = data[name] = pair.document["confusion"][side]
                blocks.append(Plot(confusion_figure(matrix, summary.classes, name), f"Confusion of {name}", matrix))
    return Section("confusion", "Confusion", blocks or [_none()], data)


def _none() -> Text:
    return Text("No labelled images were run here.", "note")


def roc_section(summary: RunSummary) -> Section:
    """One class against the rest, reference and artifact."""
    blocks: list[Block] = []
    areas: dict[str, dict[str, float | None]] = {}
    for pair in leading(summary):
        for name, one in ((pair.reference, pair.reference_answers), (pair.name, pair.candidate_answers)):
            if one is None or name in areas:
                continue
            curves = [roc(one.outcome.probabilities[:, k], one.labels == k) for k in range(len(summary.classes))]
            areas[name] = {c: None if r is None else r.area for c, r in zip(summary.classes, curves, strict=True)}
            blocks.append(
                Plot(roc_figure(curves, summary.classes, name), f"ROC of {name}, one class against the rest", areas[name])
            )
    note = Text("Not drawn: the scores of the images are not here (they stay with the run).", "note")
    return Section("roc", "ROC", blocks or [note], areas)


def calibration_section(summary: RunSummary) -> Section:
    """Is a model as sure as it is right, before and after compression?"""
    blocks: list[Block] = []
    rows, data = [], {}
    for pair in leading(summary):
        known = pair.document["calibration"]
        for name, side in ((pair.reference, "reference"), (pair.name, "candidate")):
            if name not in data:
                data[name] = known[side]
                shown = [known[side].get(key) for key in ("ece_mass", "brier", "nll")]
                rows.append((name, *("null" if v is None else f"{v:.4f}" for v in shown)))
        sides = [
            (n, s) for n, s in ((pair.reference, pair.reference_answers), (pair.name, pair.candidate_answers)) if s is not None
        ]
        if sides:
            drawn = [(name, reliability_bins(one.outcome.confidence, one.right)) for name, one in sides]
            numbers = {name: [vars(b) for b in bins] for name, bins in drawn}
            blocks.append(Plot(reliability_figure(drawn, pair.name), f"Reliability of {' and '.join(numbers)}", numbers))
    if rows:
        blocks.insert(0, Table(("model", "ECE (15 bins of equal mass)", "Brier", "NLL, nats"), rows))
    return Section("calibration", "Calibration before and after compression", blocks or [_none()], data)


def classes_section(summary: RunSummary) -> Section:
    """Paired differences of the sensitivities, class by class, with the margins that were stated beforehand."""
    blocks: list[Block] = []
    data = {}
    for pair in pairs(summary):
        document, plan = pair.document, pair.document["plan"]
        accuracy = document["accuracy"]
        whole = accuracy["deciding"]
        rows = [Difference("accuracy", accuracy["difference_pp"], whole[0], whole[1], plan["margin_pp"])] if whole else []
        rows += [
            Difference(c["name"], c["D_pp"], c["deciding"][0], c["deciding"][1], plan["class_margin_pp"])
            for c in document["classes"]
            if c.get("deciding")
        ]
        if not rows:
            continue
        title = pair.title
        numbers = data[title] = [vars(row) for row in rows]
        blocks.append(Plot(forest_figure(rows, title), f"Accuracy and sensitivity of each class: {title}", numbers))
    return Section("classes", "Paired differences", blocks or [_none()], data)


def flipped_section(summary: RunSummary, *, redact: bool, show: Show | None) -> Section:
    """Images whose label changed, with both probabilities; regressed ones first, then by how sure the artifact is."""
    blocks: list[Block] = []
    data: dict[str, list[dict[str, Any]]] = {}
    key = secrets.token_bytes(16)
    for pair in leading(summary):
        first, second = pair.reference_answers, pair.candidate_answers
        if first is None or second is None or first.ids != second.ids:
            continue
        rows = flips(first, second, summary.classes)
        title = pair.title
        for row in rows:
            image = summary.images.get(str(row["id"]).partition("#")[0])
            path = "" if image is None else image.path
            if show is not None and path and len(blocks) < MOST_FLIPPED and (png := show(path)) is not None:
                blocks.append(Photo(png, f"{_name(str(row['id']), path, redact, key)}: {row['true']}, {CHANGES[row['what']]}"))
            row["image"] = _name(str(row.pop("id")), path, redact, key)
        data[title] = rows
        note = f"{len(rows)} of {len(first.ids):,} labels changed" + (
            f"; the first {MOST_FLIPPED} are shown" if len(rows) > MOST_FLIPPED else ""
        )
        cells = [(r["image"], r["true"], r["before"], r["after"], CHANGES[r["what"]]) for r in rows[:MOST_FLIPPED]]
        blocks.append(Table(("image", "true", pair.reference, pair.name, ""), cells, f"{title}: {note}."))
    nothing = Text("Not shown: the answers for each image are not here (they stay with the run).", "note")
    return Section("flipped", "Images whose label changed", blocks or [nothing], data)


def flips(first: ModelAnswers, second: ModelAnswers, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One entry for every image that the two models label differently."""
    found = []
    one, two = first.outcome, second.outcome
    for k in np.flatnonzero(one.predictions != two.predictions):
        truth, before, after = int(first.labels[k]), int(one.predictions[k]), int(two.predictions[k])
        what = "lost" if before == truth else "gained" if after == truth else "both wrong"
        found.append(
            {
                "id": first.ids[k],
                "true": classes[truth],
                "before": f"{classes[before]} {one.probabilities[k, before]:.3f}",
                "after": f"{classes[after]} {two.probabilities[k, after]:.3f}",
                "what": what,
            }
        )
    return sorted(found, key=lambda r: (("lost", "gained", "both wrong").index(r["what"]), str(r["after"])[::-1], r["id"]))


def _name(sum_: str, path: str, redact: bool, key: bytes) -> str:
    """The image's name; where names may tell a patient, a sum with a key that is thrown away."""
    if redact or not path:
        return hmac.new(key, sum_.encode(), hashlib.sha256).hexdigest()[:12] if redact else sum_[:12]
    return path.rpartition("/")[2]
