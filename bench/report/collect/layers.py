"""Section of a report about the layers: what `octc analyze` ranked, and how far INT8 weights are from the float ones."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from octc.bench.report.collect.run_summary import RunSummary
from octc.bench.report.collect.weight_errors import Layer, far_layers, weight_errors
from octc.bench.report.figures.comparisons import bars_figure
from octc.bench.report.page import Block, Plot, Section, Text
from octc.core.files import read_json
from octc.core.optional import have
from octc.store.find import Found

MOST = 30
ANALYSIS = "analysis/sensitivity.json"  # of the run


def layers_section(summary: RunSummary) -> Section:
    """One figure for each INT8 graph that is stored as ONNX, against the float ONNX file of the same run."""
    blocks, data = _analysis(summary)
    floats = _onnx(summary, "fp32")
    for found in summary.found:
        if found.artifact.precision != "int8" or floats is None or not have("onnx"):
            continue
        path = found.folder / found.artifact.main_file
        if path.suffix != ".onnx" or found.artifact.lineage.get("parent") != floats.artifact.lineage.get("parent"):
            continue
        with contextlib.suppress(ValueError):
            layers = weight_errors(floats.folder / floats.artifact.main_file, path)
            if layers:
                name = found.artifact.name
                data[name] = [vars(layer) for layer in layers]
                blocks += _blocks(name, layers)
    note = Text("Not drawn: an INT8 and an FP32 ONNX artifact of the same network are needed, and the package onnx.", "note")
    return Section("layers", "Layers", blocks or [note], data)


def _analysis(summary: RunSummary) -> tuple[list[Block], dict[str, Any]]:
    """What `octc analyze` stored with the run: the cost of each layer alone in INT8."""
    path = None if summary.run is None else summary.run.path / ANALYSIS
    if path is None or not path.is_file():
        return [], {}
    try:
        found = read_json(path)
        costs = sorted(((str(c["layer"]), float(c["kl"])) for c in found["costs"]), key=lambda c: -c[1])
        images = int(found["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return [Text(f"{ANALYSIS} cannot be read: octc analyze writes it anew", "warn")], {}
    shown = costs[:MOST]
    title = f"Cost of each layer alone in INT8, {images} images of the validation set"
    caption = f"Layer sensitivity: KL to the float network, the {len(shown)} largest of {len(costs)} layers"
    return [Plot(bars_figure(shown, "KL, nats", title), caption, shown)], {"analysis": found}


def _blocks(name: str, layers: list[Layer]) -> list[Block]:
    worst = sorted(layers, key=lambda layer: -layer.error)[:MOST]
    title = f"{name}: distance of the INT8 weights from the float ones"
    far = far_layers(layers)
    figure = bars_figure([(l_.name, l_.error) for l_ in worst], "relative error of the weights", title, _limit(far, layers))
    caption = f"{name}: relative error of the weights, the {len(worst)} largest of {len(layers)} layers"
    blocks: list[Block] = [Plot(figure, caption, [vars(layer) for layer in worst])]
    if far:
        listed = "; ".join(f"{one.name}: error {one.error:.3g}, weights {one.gain:.2f} times too large" for one in far[:5])
        blocks.append(Text(f"{name}: far from the others: {listed}", "warn"))
    else:
        blocks.append(Text(f"{name}: no layer stands out."))
    return blocks


def _limit(far: list[Layer], layers: list[Layer]) -> float:
    return min((one.error for one in far), default=max(one.error for one in layers)) * (1 - 1e-9 if far else 1)


def _onnx(summary: RunSummary, precision: str) -> Found | None:
    kinds = ((f, f.artifact) for f in summary.found)
    return next(
        (f for f, a in kinds if (a.target, a.precision) == ("onnx", precision) and Path(a.main_file).suffix == ".onnx"), None
    )
