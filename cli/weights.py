"""`octc weights convert`: a checkpoint that another program wrote, as a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError


def convert(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".pth, .pt, .pth.tar, .ckpt or .safetensors of any program")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where it goes (FILE.safetensors)")] = None,
    take: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which network of it: state_dict, state_dict_ema, model, model_ema, ...")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Also check that it fits this network of timm or octc"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there")] = False,
) -> int:
    """Write the tensors of a checkpoint as safetensors. It is read by torch.load(weights_only=True), within limits."""
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
