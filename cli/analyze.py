"""`octc analyze`: what quantising each layer costs, and which ones to leave in float."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session

if TYPE_CHECKING:
    from octc.compress.sensitivity import Sensitivity

SHOWN = 12


def analyze(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Student run; the newest finished one without it")] = None,
) -> int:
    """Rank the layers of a run's INT8 network by what each costs on the validation set. Writes runs/<id>/analysis/."""
    from octc.cli.export import find_student
    from octc.core.optional import need
    from octc.core.progress import absolute

    chosen = find_student(session, run)
    session.run_id = chosen.id
    for module in ("torch", "timm", "safetensors"):
        need(module)
    from octc.compress.sensitivity import work
    from octc.export.sensitivity import BATCH, FOLDER, IMAGES, KEEP, sensitivity_of
    from octc.export.source import calibration_work, quantise, read_source
    from octc.store.locations import image_root
    from octc.store.runs import owning
    from octc.train.batches.images import cached_images

    with owning(chosen) as recovered:
        if recovered:
            session.say(recovered)
        source = read_source(chosen, image_root(chosen, session.data, os.environ))
        with session.progress("calibration", calibration_work(source) or None) as step:
            quantised = quantise(source, progress=absolute(step))
        images = cached_images(source.cache, source.root, source.split.parts["val"], source.checkpoint.preprocess)
        with session.progress("layers", work(quantised.module, min(len(images), IMAGES), BATCH)) as step:
            found = sensitivity_of(source, quantised, images, session.say, step)
    folder = chosen.path / FOLDER
    session.report({"run": chosen.id, "folder": str(folder), **found.to_json()})
    session.result(table(found, chosen.id))
    session.say(f"wrote {folder}; {KEEP} lists what the mixed-precision fallback of octc export leaves in float")
    return 0


def table(found: Sensitivity, title: str) -> str:
    """The most costly layers, and what leaving them in float recovers."""
    lines = [f"{title}: each convolution alone in INT8, {found.images} images of the validation set", ""]
    width = max(len(cost.layer) for cost in found.costs[:SHOWN])
    lines.append(f"{'layer':<{width}}  {'KL, nats':>10}  {'classes changed':>15}  {'noise of logits':>15}")
    for cost in found.costs[:SHOWN]:
        mark = "  keep in float" if cost.layer in found.keep else ""
        lines.append(f"{cost.layer:<{width}}  {cost.kl:>10.2e}  {cost.flips:>15}  {cost.noise:>15.2e}{mark}")
    if len(found.costs) > SHOWN:
        lines.append(f"and {len(found.costs) - SHOWN} more")
    lines += ["", "layers in float   agreement, %   KL, nats"]
    lines += [f"{len(one.kept):>15}   {100 * one.agreement:>12.2f}   {one.kl:>8.2e}" for one in found.trials]
    return "\n".join(lines)
