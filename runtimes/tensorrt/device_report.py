"""What a device said of an artifact's engines, as one JSON document, and the verdict that follows from it.

The document holds names of layers, versions, logits and times; no path, no host name and no image. `judge` needs nothing else:
whoever gets it can judge it again with `octc verify REPORT.json --target tensorrt`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.core.newer import refuse_newer
from octc.runtimes.tensorrt.layers import LayerReport, report_layers
from octc.schemas.tensorrt_plan import plan_from_json
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import gate, golden_part

SCHEMA = "octc.trt-device/1"
OK, FAILED, SKIPPED, NOT_ASKED = "ok", "failed", "skipped", "not asked"
SIGNS = {OK: "✓", FAILED: "✗", SKIPPED: "!", NOT_ASKED: "·"}
Found = tuple[str, str, str]  # state, text, code


@dataclass(frozen=True)
class Step:
    """One step: ok, failed, skipped or not asked; code of the failure."""

    name: str
    state: str
    text: str
    code: str = ""


@dataclass(frozen=True)
class Judgement:
    """word: "pass" only where no step failed or was skipped; "fail"; "incomplete".

    fastest: precision of an engine, None where not all were timed.
    """

    word: str
    steps: tuple[Step, ...]
    fastest: str | None
    fell_back: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(record: Mapping[str, Any]) -> Judgement:
    """The verdict on a device's record. Raises OctcError E502 where it is none."""
    if record.get("schema") != SCHEMA:
        found = record.get("schema")
        refuse_newer(str(found).rpartition("/")[2], SCHEMA.rpartition("/")[2], "this device report")
        raise OctcError(
            "OCT-E502", f"schema {found!r}, this octc reads {SCHEMA}", hint="octc verify --target tensorrt --on-device"
        )
    try:
        steps = tuple(Step(name, *look(record)) for name, look in STEPS.items())
        fell_back = any(len(one["attempts"]) > 1 for one in record["engines"])
        times = {one["precision"]: _p50(one) for one in record["engines"]}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise OctcError("OCT-E502", f"the report of the device is damaged: {error!r}", hint="make it again") from error
    states = {step.state for step in steps}
    word = "fail" if FAILED in states else "incomplete" if SKIPPED in states else "pass"
    known = {kind: p50 for kind, p50 in times.items() if p50 is not None}
    fastest = min(known, key=lambda kind: known[kind], default=None) if len(known) == len(times) else None
    return Judgement(word, steps, fastest, fell_back)


def _doctor(record: Mapping[str, Any]) -> Found:
    problems = record["doctor"]["problems"]
    if problems:
        return FAILED, "; ".join(problems), "OCT-E905"
    backend = record["backend"]
    if backend is None:
        return SKIPPED, "nobody can build an engine here", ""
    return OK, f"{backend['module']} {backend['version']} ({backend['kind']}), {_machine(record['machine'])}", ""


def _machine(machine: Mapping[str, Any]) -> str:
    named = {"gpu": "", "sm": "sm ", "driver": "driver ", "jetpack": "", "power_mode": "power mode "}
    known = [f"{word}{machine[key]}" for key, word in named.items() if machine.get(key)]
    locked = machine.get("jetson_clocks")
    return ", ".join([*known, *([] if locked is None else [f"clocks {'locked' if locked else 'not locked'}"])]) or "no GPU"


def _lint(record: Mapping[str, Any]) -> Found:
    lint = record["lint"]
    if lint is None:
        return SKIPPED, "onnx is not installed here, and the export did not record a clean file", ""
    if lint["findings"]:
        return FAILED, f"{len(lint['findings'])} findings: {'; '.join(lint['findings'][:5])}", "OCT-E404"
    return OK, lint["text"], ""


def _build(record: Mapping[str, Any]) -> Found:
    if record["error"] is not None:
        return FAILED, record["error"]["message"], record["error"]["code"]
    if not record["engines"]:
        return SKIPPED, "no engine was built", ""
    words = []
    for one in record["engines"]:
        last = one["attempts"][-1]
        more = f" after {len(one['attempts'])} attempts ({last['rung']})" if len(one["attempts"]) > 1 else ""
        words.append(f"{one['precision']} in {last['seconds']:.1f} s, {last['peak_rss_mib']} MiB{more}")
    return OK, "; ".join(words), ""


def _layers(record: Mapping[str, Any]) -> Found:
    words: list[str] = []
    missing: list[str] = []
    for one in record["engines"]:
        report = read_layers(one)
        counts = ", ".join(f"{n} {kind.upper()}" for kind, n in report.counts().items())
        share = 100 * report.macs.get(one["precision"], 0.0)
        words.append(f"{one['precision']}: {counts}; {share:.1f} % of the work; {report.reformats} reformats")
        missing += report.missing
    if not words:
        return SKIPPED, "no engine", ""
    if missing:
        return FAILED, f"{len(missing)} convolutions do not run in INT8: {', '.join(missing[:5])}", "OCT-E406"
    return OK, "; ".join(words), ""


def read_layers(engine: Mapping[str, Any]) -> LayerReport:
    """The layer report of an engine of a record, from the dump that it holds."""
    return report_layers(engine["layers"], plan_from_json(engine["plan"]))


def _golden(record: Mapping[str, Any]) -> Found:
    words: list[str] = []
    bad: list[str] = []
    for one in record["engines"]:
        if one["golden"] is None:
            return (FAILED, str(one["reason"]), "OCT-E506") if one["ran"] else (SKIPPED, str(one["reason"]), "")
        rule = one["plan"]["golden"]
        found, wanted = (np.asarray(values, np.float64) for values in (one["golden"], record["golden"][one["precision"]]))
        delta = float(np.abs(found - wanted).max()) / (float(np.ptp(wanted, axis=1).mean()) or 1.0)
        agreement = float((found.argmax(1) == wanted.argmax(1)).mean())
        holds = bool(np.isfinite(found).all()) and delta <= rule["delta_over_s"] and agreement >= rule["agreement"]
        text = (
            f"{one['precision']}: delta over s {delta:.2g} (limit {rule['delta_over_s']:g}), agreement {100 * agreement:.1f} %"
        )
        (words if holds else bad).append(text)
    if bad:
        return FAILED, "; ".join(bad), "OCT-E506"
    return (OK, "; ".join(words), "") if words else (SKIPPED, "no engine", "")


def _accuracy(record: Mapping[str, Any]) -> Found:
    images = record["images"]
    if images is None:
        return NOT_ASKED, "no labelled images were given (--images DIR)", ""
    known = {kind: np.asarray(logits, np.float32) for kind, logits in images["logits"].items()}
    if not known:
        return SKIPPED, str(images["reason"]), ""
    labels = images["labels"]
    hits = {kind: int((logits.argmax(1) == np.asarray(labels)).sum()) for kind, logits in known.items()}
    text = ", ".join(f"{kind} {100 * count / len(labels):.2f} %" for kind, count in hits.items()) + f" of {len(labels)} images"
    if not {"int8", "fp16"} <= set(known):
        return OK, f"{text} (one engine: nothing to compare)", ""
    ids = [str(place) for place in range(len(labels))]
    options = ParityOptions(margin=images["margin"])
    try:
        unknown = [None] * len(labels)
        golden = golden_part(True)
        result = gate(ids, labels, unknown, known["fp16"], known["int8"], images["classes"], options, golden)
    except OctcError as error:
        if error.code == "OCT-E901":  # a library that only the comparison needs
            return SKIPPED, f"{text}; they are not compared: {error.message} ({error.hint})", ""
        return FAILED, f"{text}: {error.message}", error.code
    if not result.accepted:
        return FAILED, f"{text}: INT8 rejected against FP16 ({', '.join(result.reasons)})", "OCT-E704"
    return OK, f"{text}: {result.word}", ""


def _latency(record: Mapping[str, Any]) -> Found:
    words = []
    for one in record["engines"]:
        if one["measured"] is None:
            return SKIPPED, str(one["reason"]), ""
        rows = [
            f"{kind.replace('_', ' ')} p50 {v['p50_ms']:.3f} p99 {v['p99_ms']:.3f} ms" for kind, v in one["measured"].items()
        ]
        words.append(f"{one['precision']}: {', '.join(rows)}")
    return (OK, "; ".join(words), "") if words else (SKIPPED, "no engine", "")


def _p50(engine: Mapping[str, Any]) -> float | None:
    return None if engine["measured"] is None else float(engine["measured"]["device"]["p50_ms"])


STEPS: dict[str, Callable[[Mapping[str, Any]], Found]] = {
    "doctor": _doctor, "lint": _lint, "build": _build, "layers": _layers, "golden": _golden, "accuracy": _accuracy,
    "latency": _latency,
}  # fmt: skip
