"""`octc.export`: artifacts of a run, or of a network of your own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.progress import Reporter
from octc.core.several import several
from octc.export.own_network import OwnNetwork, export_network
from octc.export.run import ExportOptions, export_run, plan_export
from octc.stats.test_plan import ParityOptions
from octc.store.runs import Run, find_run

RUNS = Path("runs")  # where a run is looked for that is named by its id


def export(
    source: OwnNetwork | Run | str | os.PathLike[str],
    targets: str | Sequence[str] = ("onnx",),
    precision: str = "int8",
    *,
    gate: ParityOptions | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    options: ExportOptions | None = None,
    reporter: Reporter | None = None,
) -> list[Path]:
    """Export a network as self-contained artifact folders `<target>-<precision>/`. A folder appears complete or not at all.

    Args:
        source: a run (its folder, its id below ./runs, or what `octc.train` returned), or a network from `octc.quantize`.
        targets: keys of `octc.export.formats.FORMATS`: "onnx", "openvino", "openvino-arm", "tensorrt", "tensorrt-rtx",
            "litert"; for a run also "torch". precision: "fp32", "fp16" or "int8".
        gate: margins that an INT8 artifact must keep against the float network, on the run's validation set or on the
            validation images of `octc.quantize`. None: no gate, which the manifest records. `margin` decides; `class_margin`
            (3 points unless given) only names classes for which it is not shown.
        out: folder for the artifacts; None: artifacts/ of the run, or ./artifacts for a network of your own.
        force: replace existing artifacts. options: for a run: opset, another quantiser, temperature scaling, licences.
        reporter: receives messages and progress; None: the log `octc`.

    Returns: folders in the order of `targets`; `octc.load` opens one.

    Raises:
        OctcError: E104 unknown target or precision; E102 arguments that contradict each other; E106 the artifact exists; E107
            no such run; E230 the run's images are not here; E405 refused by the gate (its files are under rejected/, the other
            artifacts are written); E506 golden images differ; E401 to E410 an exporter failed.

    >>> import numpy as np, octc
    >>> from PIL import Image
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    >>> images = [Image.fromarray(np.full((64, 64), 15 * i, np.uint8)) for i in range(16)]
    >>> quantized = octc.quantize(network, images, octc.Preprocess(size=64), classes=["CNV", "NORMAL"])
    >>> octc.export(quantized, targets=["onnx"], precision="int8", out="exported")
    [PosixPath('exported/onnx-int8')]

    A run is exported the same way:

    >>> octc.export("runs/r-0002-student-ucsd", ["onnx", "openvino"], gate=octc.Gate(margin=1))  # doctest: +SKIP
    """
    wanted = list(several(targets))
    if isinstance(source, OwnNetwork):
        if options is not None:
            text = "options are for the export of a run, and this network has none"
            raise OctcError(
                "OCT-E102", text, hint="octc.quantize(..., options=octc.QuantizeOptions(...)) for calibration", place="options"
            )
        folder = "artifacts" if out is None else out
        return export_network(source, wanted, precision, out=folder, gate=gate, force=force, reporter=reporter)
    if gate is not None and precision != "int8":
        text = f"a gate judges INT8, and {precision} is requested"
        raise OctcError("OCT-E102", text, hint="gate=None, or precision='int8'", place="gate")
    run = source if isinstance(source, Run) else find_run(RUNS, str(source))
    how = options or ExportOptions()
    jobs = plan_export(run, wanted, precision, how)
    place = None if out is None else Path(out)
    found = export_run(run, jobs, how, gate, out=place, force=force, reporter=reporter)
    if (failure := found.failure) is not None:
        raise failure
    return [one.folder for one in found.published]
