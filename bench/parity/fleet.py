"""One artifact on many machines: their documents side by side, who differs from the reference, and in which layer it begins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from octc.core.errors import OctcError, combined, shorten
from octc.core.files import read_json
from octc.imaging.preprocess import Float32
from octc.runtimes.golden import TOLERANCES, GoldenReport, Tolerance, compare_decisions, compare_logits
from octc.schemas.common import builtins
from octc.schemas.verify import FleetRow
from octc.stats.multilabel import sigmoid
from octc.stats.verdict import SHOWN
from octc.store.verdicts import headline

FACTS = ("cpu_model", "cpu_isa", "runtime", "version", "device", "driver", "threads")
LIBRARIES = ("python", "numpy", "pillow", "onnxruntime", "openvino", "tensorrt", "octc")
QUIET = 1e-5  # of a layer's size: less is the rounding of additions in another order
ANY = Tolerance("", math.inf, math.inf, 0.0, near_ties=True)  # where a document names no row of the table
HINT = "copy verify.json of each machine into one folder, or save there what octc verify --json printed"


@dataclass(frozen=True)
class Fleet:
    """The machines of a folder. passed_over: files that are no document of a verification."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "machine", "engine", "differs in", "verdict", "golden labels", "delta / s", "labels", "begins at", "",
    )  # fmt: skip

    artifact: str
    artifact_sha256: str
    reference: str
    rows: tuple[FleetRow, ...]
    passed_over: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.artifact} ({self.artifact_sha256[:12]}) on {len(self.rows)} machines, beside {self.reference}"

    def table(self) -> list[tuple[str, ...]]:
        """The matrix as text; the reference first."""
        return [_cells(row, self.reference) for row in self.rows]

    @property
    def errors(self) -> list[OctcError]:
        """An error for each machine that falls short."""
        return [
            OctcError("OCT-E506", f"{row.box} falls short: {row.short}", hint=_hint(row), place=row.file)
            for row in self.rows
            if row.short is not None
        ]

    def raise_if_failed(self) -> None:
        """Raise what falls short; nothing where no machine does."""
        if found := self.errors:
            raise combined(found)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "artifact": self.artifact,
            "artifact_sha256": self.artifact_sha256,
            "reference": self.reference,
            "rows": [builtins(row) for row in self.rows],
            "passed_over": list(self.passed_over),
        }


@dataclass(frozen=True)
class _Document:
    """One machine's document. box: what it answered."""

    name: str
    file: str
    artifact: str
    sha256: str
    engine: dict[str, Any]
    word: str
    exit_code: int
    golden: Mapping[str, Any] | None
    box: Mapping[str, Any] | None


def read_fleet(folder: Path, reference: str | None = None) -> Fleet:
    """The documents of a folder and its folders: verify.json, or what `octc verify --json` printed.

    Args:
        reference: name of the machine that the others are compared with; None: the first by name that does not fall short.

    Raises:
        OctcError: E107 no document, or no machine of that name; E706 documents of several artifacts; E708 no answers of the
            reference (an older octc wrote its document).
    """
    if not folder.is_dir():
        raise OctcError("OCT-E107", f"no folder {folder}", hint=HINT, place=str(folder))
    documents, passed = [], []
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        try:
            found = list(_documents(read_json(path), name))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            found = []
        documents += found
        passed += [] if found else [name]
    if not documents:
        raise OctcError("OCT-E107", f"no document of a verification in {folder}", hint=HINT, place=str(folder))
    if len(known := {one.sha256: one.artifact for one in documents}) > 1:
        text = f"documents of {len(known)} artifacts: {shorten(sorted(f'{v} ({k[:12]})' for k, v in known.items()))}"
        raise OctcError("OCT-E706", text, hint="one folder for each artifact", place=str(folder))
    named = _named(documents)
    chosen = _reference(named, reference, folder)
    order = [chosen, *(name for name in named if name != chosen)]
    rows = tuple(_row(name, named[name], named[chosen]) for name in order)
    return Fleet(documents[0].artifact, documents[0].sha256, chosen, rows, tuple(passed))


def _documents(value: Any, file: str) -> Iterator[_Document]:
    """Those in a file: verify.json, an envelope of --json, or one document."""
    if "artifact_sha256" in value and "golden" in value and "test" in value:
        shown = headline(value)
        values = [] if shown is None else [(shown, value["artifact_sha256"], value["artifact"])]
    else:
        listed = (value.get("data") or value).get("artifacts") or [value]
        values = [(one, _sha_of(one), one["artifact"]) for one in listed if "verdict" in one]
    for one, sha256, name in values:
        box, side = one.get("box"), one.get("candidate") or {}
        if one.get("task") == "multilabel" and (box or {}).get("thresholds") is None:
            box = None  # an older octc took the largest logit for the answer
        machine = one.get("machine") or {}
        engine = {**side.get("facts", {}), **side, **((box or {}).get("engine") or {}), **machine}
        facts = {key: engine[key] for key in FACTS if engine.get(key) is not None}
        versions = {key: one["versions"][key] for key in LIBRARIES if (one.get("versions") or {}).get(key)}
        verdict = one["verdict"]
        code = verdict.get("exit_code", 0 if verdict["word"] in ("golden_only", *SHOWN) else 1)
        host = str(machine.get("remote_host") or machine.get("host") or Path(file).stem)
        yield _Document(host, file, name, sha256, {**facts, **versions}, verdict["word"], code, one.get("golden"), box)


def _sha_of(one: Mapping[str, Any]) -> str:
    found = (one.get("candidate") or {}).get("artifact_sha256") or one["artifact_sha256"]
    return str(found)


def _named(documents: Sequence[_Document]) -> dict[str, _Document]:
    """By the name of the machine; several documents of one name by their files too."""
    names = [one.name for one in documents]
    spelt = [one.name if names.count(one.name) == 1 else f"{one.name} ({one.file})" for one in documents]
    return dict(zip(spelt, documents, strict=True))


def _reference(named: Mapping[str, _Document], wanted: str | None, folder: Path) -> str:
    if wanted is not None and wanted not in named:
        text = f"no machine {wanted} among {', '.join(named)}"
        raise OctcError("OCT-E107", text, hint="octc verify MACHINE --fleet DIR with one of them", place=str(folder))
    able = [name for name, one in named.items() if one.box is not None and one.exit_code == 0]
    chosen = wanted or next(iter(able), next(iter(named)))
    if named[chosen].box is None:
        text = f"the document of {chosen} does not hold what it answered"
        raise OctcError("OCT-E708", text, hint="verify there again with this octc", place=named[chosen].file)
    return chosen


def no_answers(box: str, file: str, word: str, short: str, **engine: Any) -> FleetRow:
    """A machine of which nothing can be compared, and why. engine, differs: as of a row."""
    facts: dict[str, Any] = {"engine": {}, "differs": [], **engine}
    return FleetRow(
        box=box, file=file, word=word, short=short, **facts, golden_labels=0, golden_images=0, delta_over_s=None, labels=None,
        images=None, labels_at_ties=None, first_layer=None, first_error=None, worst_layer=None, worst_error=None,
    )  # fmt: skip


def _row(name: str, one: _Document, reference: _Document) -> FleetRow:
    differs = [key for key in (*FACTS, *LIBRARIES) if one.engine.get(key) != reference.engine.get(key)]
    facts: dict[str, Any] = {"engine": one.engine, "differs": differs}
    if one.box is None or reference.box is None:
        return no_answers(name, one.file, one.word, "an older octc wrote its document: verify again", **facts)
    ours, theirs = (np.asarray(box["golden_logits"], np.float32) for box in (one.box, reference.box))
    if ours.shape != theirs.shape:
        return no_answers(name, one.file, one.word, "other golden images than the reference", **facts)
    thresholds = reference.box.get("thresholds")
    report = _compared(ours, theirs, thresholds, TOLERANCES.get(str((one.golden or {}).get("tolerance_id")), ANY))
    flips = int((_answers(ours, thresholds) != _answers(theirs, thresholds)).any(axis=1).sum())
    labels, images, at_ties = _labels(one.box, reference.box, float(np.abs(ours - theirs).max()))
    first, first_error, worst, worst_error = _layers(one.box, reference.box)
    return FleetRow(
        box=name, file=one.file, word=one.word, **facts, golden_labels=flips, golden_images=len(ours),
        delta_over_s=report.delta_over_s, labels=labels, images=images,
        labels_at_ties=at_ties, first_layer=first, first_error=first_error,
        worst_layer=worst, worst_error=worst_error, short=_short(one, report, flips),
    )  # fmt: skip


def _compared(ours: Float32, theirs: Float32, thresholds: Sequence[float] | None, row: Tolerance) -> GoldenReport:
    """Golden logits beside those of the reference, as an artifact's are beside its recorded ones."""
    return compare_logits(ours, theirs, row) if thresholds is None else compare_decisions(ours, theirs, row, thresholds)


def _answers(logits: Float32, thresholds: Sequence[float] | None) -> Any:
    """The class of each image [n, 1], or which findings it has [n, K]."""
    return logits.argmax(axis=1)[:, None] if thresholds is None else sigmoid(logits) >= np.asarray(thresholds)


def _short(one: _Document, report: GoldenReport, flips: int) -> str | None:
    """Why a machine falls short: its own verdict, else its golden images beside those of the reference."""
    row, delta, kl = TOLERANCES.get(report.tolerance_id, ANY), report.delta_over_s, report.kl_mean
    if one.exit_code:
        return f"its own verdict is {one.word}"
    if report.ok:
        return None
    if delta is None or delta > row.delta_over_s:
        found = "NaN" if delta is None else f"{delta:.2g}"
        return f"golden logits differ by {found} of their range (limit {row.delta_over_s:g})"
    if kl is None or kl > row.kl_mean:
        return f"golden probabilities differ: KL {'NaN' if kl is None else f'{kl:.2g}'} (limit {row.kl_mean:g})"
    return f"{flips} golden labels differ"


def _labels(box: Mapping[str, Any], reference: Mapping[str, Any], moved: float) -> tuple[int | None, int | None, int | None]:
    """Labelled images that are answered differently, of how many, and those of them at ties.

    A tie: logits of the reference that change their order where each of them moves by `moved`. None where the two did not
    answer the same images, or where it is not known how far apart logits are.
    """
    ours, theirs = box.get("labels"), reference.get("labels")
    if not ours or not theirs or ours["sha256_of_ids"] != theirs["sha256_of_ids"]:
        return None, None, None
    differ = [a != b for a, b in zip(ours["predictions"], theirs["predictions"], strict=True)]
    if "gaps" not in theirs or not math.isfinite(moved):
        return sum(differ), len(differ), None
    at_ties = sum(other and gap <= 2 * moved for other, gap in zip(differ, theirs["gaps"], strict=True))
    return sum(differ), len(differ), at_ties


def _layers(box: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[str | None, float | None, str | None, float | None]:
    """The first layer that differs by more than rounding, and the one that adds most, with their errors."""
    ours, theirs = box.get("layers") or [], reference.get("layers") or []
    if not ours or [one["name"] for one in ours] != [one["name"] for one in theirs]:
        return None, None, None, None
    errors = []
    for a, b in zip(ours, theirs, strict=True):
        x, y = np.asarray(a["values"], np.float64), np.asarray(b["values"], np.float64)
        size = float(np.sqrt((y**2).mean()))
        errors.append(float(np.sqrt(((x - y) ** 2).mean())) / size if size > 0 else 0.0)
    first = next((k for k, error in enumerate(errors) if error > QUIET), None)
    if first is None:
        return None, None, None, None
    added = np.diff(errors, prepend=0.0)
    worst = int(added.argmax())
    return ours[first]["name"], errors[first], ours[worst]["name"], errors[worst]


def _hint(row: FleetRow) -> str:
    if row.first_layer is not None:
        return (
            f"the difference begins at layer {row.first_layer}: octc export with that layer in float, or another engine there"
        )
    return "octc verify --layers on both machines says where it begins; another engine or artifact for that machine"


def _cells(row: FleetRow, reference: str) -> tuple[str, ...]:
    engine = " ".join(str(row.engine[key]) for key in ("runtime", "version", "cpu_isa") if key in row.engine)
    begins = "" if row.first_layer is None else f"{row.first_layer} ({row.first_error:.1e})"
    at_ties = f" ({row.labels_at_ties} at ties)" if row.labels_at_ties else ""
    return (
        row.box,
        engine,
        "(reference)" if row.box == reference else ", ".join(row.differs),
        row.word.replace("_", " "),
        f"{row.golden_labels}/{row.golden_images}",
        "null" if row.delta_over_s is None else f"{row.delta_over_s:.2e}",
        "unknown" if row.labels is None else f"{row.labels}/{row.images}{at_ties}",
        begins,
        "" if row.short is None else "SHORT",
    )
