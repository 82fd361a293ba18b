"""`octc import`: makes an artifact from a network that was trained elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError
from octc.core.import_options import ImportOptions

if TYPE_CHECKING:
    from octc.export.imports.importing import Imported


def import_(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="ONNX file, or .xml file of an OpenVINO IR")],
    preprocess: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="Preprocessing: JSON of timm, torchvision, transformers or octc; or timm:NAME, torchvision:NAME",
        ),
    ],
    classes: Annotated[
        str, typer.Option(metavar="A,B,...", help="Class names in the order of the logits, or a file with them")
    ],
    options: ImportOptions,
) -> int:
    """Make an artifact from a network that was trained elsewhere. --data DIR also makes a run, for octc verify and INT8."""
    from octc.core.optional import need_wing

    need_wing("export")
    from octc.export.imports.classes import read_classes
    from octc.export.imports.importing import import_model

    data = None if session.data is None else Path(session.data)
    asked = replace(options, data=data, run_dir=session.run_dir)
    if data is not None and asked.images is not None:
        raise OctcError("OCT-E102", "--images is for imports without --data", hint="leave --images out", place="--images")
    made = import_model(file, preprocess, read_classes(classes), options=asked, reporter=session)
    session.run_id = None if made.run is None else made.run.id
    session.report({
        "run": session.run_id, "folder": str(made.folder), "name": made.artifact.name, "model": made.artifact.model,
        "classes": list(made.artifact.classes), "preprocess": made.artifact.preprocess.to_json(),
        "difference": made.difference, "notes": list(made.notes), "details": _details(made),
    })  # fmt: skip
    session.result(f"{made.folder}  {made.artifact.details['bytes'] / 1e6:.2f} MB, {len(made.artifact.classes)} classes")
    session.say(f"next: {_next(made)}")
    return 0


def _details(made: Imported) -> dict[str, object]:
    return {key: value for key, value in made.artifact.details.items() if key not in ("operators", "input_statistics")}


def _next(made: Imported) -> str:
    """The commands to run next."""
    if made.run is None:
        return f"octc predict {made.folder} IMAGE, octc bench {made.folder}; octc import --data DIR makes a run"
    if made.artifact.precision == "fp32" and made.artifact.target == "onnx":
        return f"octc export {made.run.id} --int8 --target onnx --ptq onnxruntime && octc verify {made.run.id}"
    return f"octc verify {made.run.id}"
