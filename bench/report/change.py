"""What changed between two artifacts, what was tested with which result, and what is not known.

Laid out along a predetermined change control plan as regulators describe it (description of modifications, modification
protocol, impact assessment). It tells what is recorded; whether a change lies within a plan is its owner's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octc.bench.report.collect.rules import broken_promises, promise_rows
from octc.bench.report.collect.run_summary import RunSummary, read_run_summary
from octc.bench.report.page import Block, Section, Table, Text, write_forms
from octc.bench.report.sbom import cyclonedx
from octc.core.files import at_free_name, publishing, stamped, write_json
from octc.core.version import own_version
from octc.datasets.licences import ALLOWED, terms_of
from octc.runtimes.onnx_reader import operators_of
from octc.stats.deciding import KEY as DECISIONS
from octc.stats.patients import NOT_RECORDED, words_of
from octc.store.artifacts import Artifact
from octc.store.find import Found
from octc.store.verdicts import is_exploratory, word_of

DATA = ("dataset", "data_digest", "split_digest", "protocol", "patient_ids", "images_without_patient")
TRAINING = ("run", "recipe", "teacher_run", "checkpoint", "quantised_checkpoint")
UNKNOWN = "not recorded"
NOTE = (
    "octc lists what is recorded. Whether a change lies within an authorised plan, and what follows, is its owner's to decide."
)


@dataclass(frozen=True)
class Change:
    """One thing that differs. group: "data", "training", "weights", "graph", "engine" or "interface"."""

    group: str
    what: str
    old: str
    new: str


@dataclass(frozen=True)
class Tested:
    """One result of one of the two: its artifact ("old" or "new"), what was tested, and the result in words."""

    artifact: str
    what: str
    result: str
    conditions: str


@dataclass(frozen=True)
class ChangeDossier:
    """Two artifacts beside each other.

    Attributes:
        names, checksums: of the old and the new one. changes, tested: rows. unknown: sentences.
        materials: of the bills of materials: "added", "removed" and "changed" components. bills: both, as CycloneDX.
    """

    names: tuple[str, str]
    checksums: tuple[str, str]
    changes: tuple[Change, ...]
    tested: tuple[Tested, ...]
    unknown: tuple[str, ...]
    materials: Mapping[str, Sequence[str]]
    bills: tuple[Mapping[str, Any], Mapping[str, Any]]

    @property
    def title(self) -> str:
        return f"Change of {self.names[0]} to {self.names[1]}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the bills."""
        return {
            "old": {"name": self.names[0], "manifest_sha256": self.checksums[0]},
            "new": {"name": self.names[1], "manifest_sha256": self.checksums[1]},
            "changes": [asdict(one) for one in self.changes],
            "tested": [asdict(one) for one in self.tested],
            "unknown": list(self.unknown),
            "materials": {key: list(values) for key, values in self.materials.items()},
        }


def read_change(old: Found, new: Found, run_dir: Path, time_utc: str) -> ChangeDossier:
    """Compare two artifacts that were read, and what is stored beside them.

    Raises:
        OctcError: of `read_run_summary`.
    """
    sides = [read_run_summary([one], run_dir) for one in (old, new)]
    bills = cyclonedx(sides[0], time_utc), cyclonedx(sides[1], time_utc)
    return ChangeDossier(
        (_name(old), _name(new)),
        (_sum(sides[0]), _sum(sides[1])),
        tuple(_changes(old, new)),
        tuple(one for name, side in zip(("old", "new"), sides, strict=True) for one in _tested(name, side)),
        tuple(dict.fromkeys(_unknown(sides))),
        materials_of(*bills),
        bills,
    )


def _name(found: Found) -> str:
    return f"{found.artifact.lineage.get('run') or 'no run'}/{found.artifact.name}"


def _sum(summary: RunSummary) -> str:
    return summary.checksums[summary.first.artifact.name]


def _changes(old: Found, new: Found) -> Iterator[Change]:
    a, b = old.artifact, new.artifact
    for group, names in (("data", DATA), ("training", TRAINING)):
        yield from _differing(group, {n: a.lineage.get(n) for n in names}, {n: b.lineage.get(n) for n in names})
    yield from _differing("weights", _weights(a), _weights(b))
    yield from _differing("graph", _graph(old), _graph(new))
    yield from _differing("engine", _engine(a), _engine(b))
    yield from _differing("interface", _interface(a), _interface(b))


def _differing(group: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            yield Change(group, name.replace("_", " "), _spelt(old.get(name)), _spelt(new.get(name)))


def _spelt(value: Any) -> str:
    return UNKNOWN if value in (None, "", {}, []) else str(value)


def _weights(artifact: Artifact) -> dict[str, Any]:
    """Start weights, every teacher, and their terms."""
    found: dict[str, list[str]] = {}
    for one in terms_of(artifact.lineage, artifact.model):
        if one.what != "data set":
            found.setdefault(one.what, []).append(f"{one.name} ({one.licence}; commercial use {one.use})")
    return {what: "; ".join(named) for what, named in found.items()}


def _graph(found: Found) -> dict[str, Any]:
    """The network, its file, and (ONNX) how often each operator stands in it."""
    artifact = found.artifact
    entry = artifact.files[artifact.main_file]
    facts: dict[str, Any] = {"network": artifact.model, "file": entry.sha256, "bytes": entry.bytes}
    if artifact.main_file.endswith(".onnx"):
        counts = operators_of(found.folder / artifact.main_file)
        facts |= {f"operators {name}": count for name, count in sorted(counts.items())}
    return facts


def _engine(artifact: Artifact) -> dict[str, Any]:
    versions = artifact.lineage.get("versions") or {}
    facts = {"target": artifact.target, "precision": artifact.precision, "processors": artifact.details.get("processors")}
    return {**facts, **{f"made with {name}": version for name, version in sorted(versions.items())}}


def _interface(artifact: Artifact) -> dict[str, Any]:
    """What a program that uses the artifact relies on."""
    pre = artifact.preprocess.to_json()
    facts = {"task": artifact.task, "role": artifact.role, "classes": ", ".join(artifact.classes)}
    details = {name: artifact.details.get(name) for name in ("thresholds", "temperature", "aggregation", DECISIONS)}
    return {**facts, **{f"preprocessing {key}": value for key, value in pre.items()}, **details}


def _tested(name: str, summary: RunSummary) -> Iterator[Tested]:
    artifact = summary.first.artifact
    for document in summary.stored.get(artifact.name) or ([summary.verdicts[artifact.name]] if summary.verdicts else []):
        yield from _verdict(name, document)
    for timing in summary.timings.values():
        for row in timing.rows:
            p50 = ((row.get("latency_ms") or {}).get("p50") or {}).get("value")
            what = f"latency, {row.get('scenario')}, {row.get('scope')}, batch {row.get('batch')}"
            told = f"{row.get('status')}" + ("" if p50 is None else f", p50 {p50:.2f} ms")
            yield Tested(name, what, told, str((timing.document.get("machine") or {}).get("name")))
    gate = artifact.details.get("gate") or {}
    if gate:
        yield Tested(name, "gate of the export (validation set)", str(gate.get("word")), f"n={gate.get('n')}")


def _verdict(name: str, document: Mapping[str, Any]) -> Iterator[Tested]:
    golden, used, plan = document.get("golden") or {}, document.get("set") or {}, document.get("plan") or {}
    if golden:
        delta = golden.get("max_delta_over_s", golden.get("delta_over_s"))
        told = ("as exported" if golden.get("ok") else "DIFFERENT") + ("" if delta is None else f", delta over s {delta:.2g}")
        yield Tested(name, "golden images", told, f"{golden.get('images')} images")
    if not used:
        return
    about = f"{used.get('name')} set, n={used.get('n')}, margin {plan.get('margin_pp', '?')} pp, {document.get('time_utc', '')}"
    yield Tested(name, f"against {document.get('against', 'fp32')}", word_of(document), about)
    accuracy = document.get("accuracy") or {}
    if accuracy:
        low, high = accuracy.get("deciding") or (None, None)
        limits = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
        told = f"{accuracy['candidate']:.2f} %, {accuracy['difference_pp']:+.3f}{limits} points to its reference"
        yield Tested(name, "accuracy", told, about)
    for row in document.get("classes") or ():
        if row.get("candidate"):
            guard = "guard holds" if row["guard"] else f"guard open: {row['guard_reason']}"
            yield Tested(name, f"sensitivity {row['name']}", f"{row['candidate']['sens']:.2f} % ({guard})", f"n={row['n']}")
    for _, unit, what, level, _, value, n, word in promise_rows(name, document):
        yield Tested(name, f"rules ({unit}): {what}", f"{value} %, promised {level} %: {word}", f"n={n}")


def _unknown(sides: Sequence[RunSummary]) -> Iterator[str]:
    """What neither test nor record says."""
    for name, side in zip(("old", "new"), sides, strict=True):
        artifact = side.first.artifact
        document = side.verdicts.get(artifact.name)
        if document is None or not document.get("set"):
            yield f"the {name} artifact was not verified on labelled images where its documents come from"
        elif is_exploratory(document):
            yield f"the verdict of the {name} artifact is exploratory: {document['verdict'].get('exploratory_reason')}"
        yield from (f"{name}: {text}" for text in _of_rules(artifact, document))
        if not side.timings:
            yield f"no latency of the {name} artifact is stored beside it"
        if (text := words_of(side.patient_ids)) and text != NOT_RECORDED:
            yield f"{name}: {text}"
        elif side.patient_ids is None:
            yield f"{name}: {NOT_RECORDED}"
        for term in terms_of(artifact.lineage, artifact.model):
            if term.use != ALLOWED:
                yield f"{name}: {term.what} {term.name}: commercial use {term.use} ({term.licence})"
    yield from _other_classes(*(side.first.artifact for side in sides))
    known = [side.verdicts.get(side.first.artifact.name) or {} for side in sides]
    sets = [(one.get("set") or {}).get("sha256_of_ids") for one in known]
    if None in sets or sets[0] != sets[1]:
        yield "the two were not judged on the same images: octc compare OLD NEW, or two tables of predictions, would say more"
    yield "devices, sites and populations that are in no set were not looked at"


def _of_rules(artifact: Artifact, document: Mapping[str, Any] | None) -> Iterator[str]:
    """Promises that are broken, or that no test judged."""
    yield from (f"a promise of its rules is broken: {text}" for text in broken_promises(document))
    if DECISIONS in artifact.details and not (document or {}).get("rules"):
        yield "no test says whether the rules that it decides by keep their promises"


def _other_classes(old: Artifact, new: Artifact) -> Iterator[str]:
    """That the two answer different questions, where they do."""
    if (old.task, set(old.classes)) != (new.task, set(new.classes)):
        only = (("old", set(old.classes) - set(new.classes)), ("new", set(new.classes) - set(old.classes)))
        named = "; ".join(f"only the {which}: {', '.join(sorted(names))}" for which, names in only if names)
        why = f"classes ({named})" if named else f"tasks ({old.task}, {new.task})"
        yield f"the two answer different questions, by their {why}: their accuracies cannot be compared with each other"


def materials_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[str]]:
    """Components of two CycloneDX documents that one of them lacks, or that have another version, digest or licence."""
    before, after = (dict(_components(bill["components"])) for bill in (old, new))
    changed = [name for name in before if name in after and before[name] != after[name]]
    return {
        "added": sorted(name for name in after if name not in before),
        "removed": sorted(name for name in before if name not in after),
        "changed": sorted(f"{name}: {before[name]} -> {after[name]}" for name in changed),
    }


def _components(components: Sequence[Mapping[str, Any]], above: str = "") -> Iterator[tuple[str, str]]:
    """Type and name of every component, with what tells one state of it from another."""
    for one in components:
        name = f"{above}{one['type']} {one['name']}"
        digests = " ".join(entry["content"][:16] for entry in one.get("hashes", ()))
        licence = ", ".join(entry["license"]["name"] for entry in one.get("licenses", ()))
        yield name, " ".join(part for part in (str(one.get("version", "")), digests, licence) if part) or "as named"
        yield from _components(one.get("components", ()), f"{one['name']}: ")


def sections_of(found: ChangeDossier) -> list[Section]:
    """The document, in the order of a change control plan."""

    def changes(*groups: str) -> Block:
        rows = [(one.group, one.what, one.old, one.new) for one in found.changes if one.group in groups]
        return Table(("", "what", "old", "new"), rows) if rows else Text("No difference is recorded.", "note")

    def tested(*words: str) -> Block:
        rows = [(one.artifact, one.what, one.result, one.conditions) for one in found.tested]
        kept = [row for row in rows if not words or row[1].startswith(words)]
        return Table(("artifact", "test", "result", "conditions"), kept) if kept else Text("Nothing is stored.", "warn")

    head: list[Block] = [Text(NOTE, "note"), Table(("", "artifact", "sha256 of its manifest"), [
        (word, name, digest) for word, name, digest in zip(("old", "new"), found.names, found.checksums, strict=True)
    ])]  # fmt: skip
    bill = [(kind, one) for kind, values in found.materials.items() for one in values]
    return [
        Section("modifications", "1. Description of modifications", [*head, changes("graph", "engine", "interface")]),
        Section("data", "2.1 Modification protocol: data management", [changes("data")]),
        Section("training", "2.2 Modification protocol: re-training", [changes("training", "weights")]),
        Section("evaluation", "2.3 Modification protocol: performance evaluation", [tested()]),
        Section(
            "update",
            "2.4 Modification protocol: update procedures",
            [
                Text("The new artifact is checked whole by its manifest; the old one is put back by its checksum."),
                tested("golden images", "latency"),
            ],
        ),
        Section("impact", "3. Impact assessment: what is not known", [Text(text, "warn") for text in found.unknown]),
        Section(
            "materials", "4. Bill of materials: differences", [Table(("", "component"), bill)] if bill else [Text("None.")]
        ),
    ]


def write_change(found: ChangeDossier, reports: Path, time_utc: str) -> Path:
    """reports/dossier-<time>/ with dossier.html, dossier.md, dossier.json and both bills of materials (CycloneDX)."""
    made, foot = sections_of(found), f"Made by octc {own_version()} on {time_utc} from what is stored with the artifacts."

    def write(folder: Path) -> None:
        with publishing(folder) as new:
            document = {"schema_version": "1.0", "time_utc": time_utc, **found.to_json()}
            write_forms(new, "dossier", found.title, made, foot, document)
            for name, bill in zip(("old", "new"), found.bills, strict=True):
                write_json(new / f"{name}.cdx.json", dict(bill))

    return at_free_name(lambda: stamped(reports, "dossier"), write)[0]
