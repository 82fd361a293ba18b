"""`octc weights convert`: converts a checkpoint of another program to a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError


def convert(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint: .pth, .pt, .pth.tar, .ckpt or .safetensors")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write (FILE.safetensors)")] = None,
    take: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Entry of the checkpoint: state_dict, state_dict_ema, model, model_ema, ..."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Also check that the tensors fit this network of timm or octc"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file")] = False,
) -> int:
    """Write the tensors of a checkpoint as safetensors. The file is read with torch.load(weights_only=True), within limits."""
    from octc.core.optional import need

    for module in ("torch", "safetensors"):
        need(module)
    from octc.train.networks.checkpoint_files import read_checkpoint_file, words, write_converted
    from octc.train.networks.weight_matching import words as words_of_fit

    target = out or file.with_name(f"{file.name.removesuffix('.tar').rpartition('.')[0] or file.name}.safetensors")
    if target.exists() and (not force or target.resolve() == file.resolve()):
        hint = "--out FILE" if target.resolve() == file.resolve() else "--force, or --out FILE"
        raise OctcError("OCT-E106", f"output exists: {target}", hint=hint, place=str(target))
    taken = read_checkpoint_file(file, take)
    fit: dict[str, Any] = {}
    if model is not None:
        from octc.train.networks.fitting import fitted_state

        _, fit = fitted_state(taken, model, str(file))
    sha256 = write_converted(taken, target, file.name)
    for line in [*words(taken), *words_of_fit(fit)]:
        session.say(f"  {line}")
    session.report({**taken.to_json(), "file": str(target), "sha256": sha256, "model": model, "fit": fit})
    session.result(f"{target}  {len(taken.state)} tensors")
    return 0
