"""The results table of a student run: written from what `octc verify` and `octc bench` stored, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octc.core.files import read_json
from octc.stats.patients import set_words
from octc.store.artifacts import MANIFEST, artifact_sha256
from octc.store.runs import newest_run
from octc.store.verdicts import MARK, is_exploratory, on_test, read_verdict

HEAD = (
    "| network, file | MiB | accuracy, % [95 %] | DRUSEN sensitivity, % [95 %] | agreement with FP32, % | verdict | "
    "latency, ms (p50, batch 1) | the teacher takes … times as long |"
)
NOTE = (
    "Measured on a small subset of UCSD (see the data sheet of the images that were given): not comparable with published "
    "numbers, which come from models trained on 108,312 images."
)


def results_table(place: Path, dataset: str) -> str:
    """Markdown: one row for the teacher, one for each artifact of the newest finished student run under place/runs."""
    run = newest_run(place / "runs", "student", dataset, artifacts=True)
    places = [p.parent for p in sorted(run.artifacts.glob("*/verify.json"))]
    documents = {p.name: next(iter(on_test(read_verdict(p, artifact_sha256(p)))), None) for p in places}
    known = {name: document for name, document in documents.items() if document and document.get("accuracy")}
    sizes = {p.parent.name: _mib(p) for p in sorted(run.artifacts.glob(f"*/{MANIFEST}"))}
    reports = sorted((place / "reports").glob("bench-*.json"), key=lambda p: p.stat().st_mtime)
    bench = read_json(reports[-1]) if reports else {"artifacts": [], "rows": [], "comparisons": []}
    lines = [HEAD, "| --- " * 8 + "|"]
    teacher = next((c for d in known.values() for c in (d, *d["claims"]) if c["against"] == "teacher"), None)
    if teacher is not None:
        lines.append(_row(f"teacher {teacher['reference']['model']}", teacher, "reference", None, "", _bench(bench, None)))
    first = next((d for d in known.values() if d["against"] == "fp32"), None)
    if first is not None:
        name = first["reference"]["name"]
        lines.append(_row(f"student {name} (FP32 reference)", first, "reference", sizes[name], "", _bench(bench, name)))
    for name, document in known.items():
        agreement = f"{100 * document['agreement']['rate']:.2f}"
        lines.append(_row(f"student {name}", document, "candidate", sizes[name], agreement, _bench(bench, name)))
    views = [(name, row) for name, document in known.items() for row in document["tta"] if row["against"] == "fp32"]
    told = [f"{name}: {_share(row, 'candidate')} (FP32 {_share(row, 'reference')})" for name, row in views if "int8" in name]
    tta = f"\nWith five views (TTA), each compared with FP32 under the same views: {'; '.join(told)}.\n" if told else ""
    return "\n".join([*lines, tta, NOTE, "", _conditions(first, bench), ""])


def _mib(manifest: Path) -> float:
    value = read_json(manifest)
    own = [e["bytes"] for name, e in value["files"].items() if name.startswith("model.")]
    return float(sum(own)) / 2**20


def _share(document: dict[str, Any], side: str) -> str:
    found = document["accuracy"]
    low, high = found["wilson"][side]
    return f"{found[side]:.2f} [{low:.2f}, {high:.2f}] ({found['hits'][side]}/{document['set']['n']})"


def _row(name: str, document: dict[str, Any], side: str, size: float | None, agreement: str, timing: tuple[str, str]) -> str:
    drusen = next((row for row in document["classes"] if row["name"] == "DRUSEN"), None)
    shown = "" if drusen is None else _sensitivity(drusen[side])
    verdict = document["verdict"]["word"].replace("_", "-") + (MARK if is_exploratory(document) else "")
    verdict = "reference" if side == "reference" else verdict
    mib = "" if size is None else f"{size:.2f}"
    return f"| {name} | {mib} | {_share(document, side)} | {shown} | {agreement} | {verdict} | {timing[0]} | {timing[1]} |"


def _sensitivity(row: dict[str, Any]) -> str:
    low, high = row["sens_wilson"]
    return f"{row['sens']:.2f} [{low:.2f}, {high:.2f}]"


def _bench(bench: dict[str, Any], name: str | None) -> tuple[str, str]:
    """(p50 of the device row, ratio as shipped) of an artifact, or of the teacher where `name` is None."""
    roles = {one["id"]: one["role"] for one in bench["artifacts"]}
    fits = [a for a, role in roles.items() if (role == "reference" if name is None else a == name)]
    rows = [r for r in bench["rows"] if r["artifact"] in fits and r["scope"] == "device" and r["batch"] == 1]
    timed = [r for r in rows if r.get("latency_ms")]
    p50 = "; ".join(_p50(r, r["artifact"] if name is None else "") for r in timed)
    ids = {r["id"] for r in timed}
    ratios = [
        c for c in bench["comparisons"] if c["kind"] == "as_shipped" and c["candidate_row"] in ids and c["ratio"].get("value")
    ]
    told = [f"{c['ratio']['value']:.1f} [{c['ratio']['ci95'][0]:.1f}, {c['ratio']['ci95'][1]:.1f}]" for c in ratios]
    return p50 or "not measured", "1" if name is None else "; ".join(told)


def _p50(row: dict[str, Any], label: str) -> str:
    value = row["latency_ms"]["p50"].get("value")
    mark = "" if row["status"] == "VALID" else f" ({row['status']}: {', '.join(row['reasons'])})"
    return f"{label} {'null' if value is None else format(value, '.2f')}{mark}".strip()


def _conditions(first: dict[str, Any] | None, bench: dict[str, Any]) -> str:
    machine = bench.get("machine") or {}
    people = "" if first is None else f"{first['set']['n']} test images, {set_words(first['set'])}, "
    plan = {} if first is None else first["plan"]
    margins = f"margins {plan.get('margin_pp')} and {plan.get('class_margin_pp')} (class) points" if plan else ""
    host = f"{machine.get('cpu_model')}, {machine.get('cores_physical')} cores, {' '.join(machine.get('isa', []))}"
    when = "" if first is None else str(first.get("time_utc", ""))[:10]
    profile = (bench.get("settings") or {}).get("profile", "")
    return f"{when}: {people}{margins}; {host}; octc bench, {profile} profile."
