"""The terminal table of a cross-validation: metrics as rows, folds as columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.stats.patients import words_of

SHOWN = {
    "accuracy": "accuracy, %",
    "macro_sensitivity": "macro sensitivity, %",
    "macro_specificity": "macro specificity, %",
    "macro_f1": "macro F1, %",
    "disease_vs_normal_sensitivity": "disease: sensitivity, %",
    "disease_vs_normal_specificity": "disease: specificity, %",
}
WORDS = (
    "std0, std1: deviation over folds with ddof 0 (as KD-OCT prints) and 1; out-of-fold: every image once, by the network "
    "that did not see it"
)


def say_summary(session: Session, found: dict[str, Any], folder: Path) -> None:
    """Print the metrics of every fold, their spread, the out-of-fold metrics with intervals, and those of the ensemble."""
    folds, held, together = found["folds"], found["out_of_fold"], found["ensemble"]
    heads = ["figure", *(f"f{fold['fold']}" for fold in folds), "mean", "std0", "std1"]
    heads += [*(["out-of-fold", "95%"] if held else []), *(["ensemble"] if together else [])]
    rows = [_row(found, name, words) for name, words in SHOWN.items() if folds[0]["figures"][name] is not None]
    losses = [f"{fold['loss']:.4f}" for fold in folds]
    spread = ["-" if found["loss"][key] is None else f"{found['loss'][key]:.4f}" for key in ("mean", *STD)]
    rows.append(
        ["loss, nats", *losses, *spread, *(["", ""] if held else []), *([f"{together['loss']:.4f}"] if together else [])]
    )
    facts = {
        "val accuracy, %": [_percent(fold["val_accuracy"]) for fold in folds],
        "images": [f"{fold['n']:,}" for fold in folds],
        "patients": ["unknown" if fold["patients"] is None else str(fold["patients"]) for fold in folds],
        "epochs": [str(fold["epochs"]) for fold in folds],
        "hours": [f"{fold['hours']:.2f}" for fold in folds],
    }
    if any(fold["left_out"] for fold in folds):
        facts = {"left out": [fold["left_out"] or "" for fold in folds], **facts}
    rows += [[name, *cells, *[""] * (len(heads) - 1 - len(cells))] for name, cells in facts.items()]
    session.result(Rows(heads, rows, f"{found['model']} on {found['dataset']}, {found['of']} folds"))
    session.result(str(folder))
    _say_beside(session, found)


STD = ("std_population", "std_sample")


def _row(found: dict[str, Any], name: str, words: str) -> list[str]:
    spread, held, together = found["spread"][name], found["out_of_fold"], found["ensemble"]
    cells = [words, *(_percent(fold["figures"][name]) for fold in found["folds"])]
    cells += [_percent(spread[key]) for key in ("mean", *STD)]
    if held:
        limits = held["bootstrap_95"].get(name)
        cells += [_percent(held["figures"][name]), "-" if limits is None else f"{100 * limits[0]:.2f}..{100 * limits[1]:.2f}"]
    return [*cells, _percent(together["figures"][name])] if together else cells


def _say_beside(session: Session, found: dict[str, Any]) -> None:
    """Print the notes below the table."""
    held, together = found["out_of_fold"], found["ensemble"]
    drawn = "" if not held else "; 95%: whole patients drawn" if held["patients"] is not None else "; 95%: images drawn"
    session.say(f"  {WORDS}{drawn}")
    if held:
        whose = "patients unknown" if held["patients"] is None else f"{held['patients']:,} patients"
        session.say(f"  out of fold: {held['n']:,} images, {whose}")
    if warning := words_of(found["patient_ids"]):
        session.warn("OCT-W212", warning)
    if found["note"]:
        session.warn("OCT-W219", found["note"])
    if together:
        session.say(f"  the ensemble is judged on: {together['part']}, {together['n']:,} images")
    else:
        session.say(f"  no ensemble: {found['no_ensemble']}")
    if found["kind"] == "student":
        session.say("  figures are those of the float students (train/), before any quantisation")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
