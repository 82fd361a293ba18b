"""`octc analyze`: the quantisation sensitivity of each layer, and which layers to leave in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session

if TYPE_CHECKING:
    from octc.compress.sensitivity import Sensitivity

SHOWN = 12


def analyze(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Student run (the newest finished one)")] = None,
) -> int:
    """Rank the layers of a run by the loss that INT8 causes in each, on the validation set. Writes runs/<id>/analysis/."""
    from octc.cli.export import find_student
    from octc.core.optional import need

    chosen = find_student(session, run)
    session.run_id = chosen.id
    for module in ("torch", "timm", "safetensors"):
        need(module)
    from octc.export.sensitivity import FOLDER, KEEP, analyse_run

    found = analyse_run(chosen, data=session.data, reporter=session)
    folder = chosen.path / FOLDER
    session.report({"run": chosen.id, "folder": str(folder), **found.to_json()})
    session.result(table(found, chosen.id))
    session.say(f"wrote {folder}; {KEEP} lists what the mixed-precision fallback of octc export leaves in float")
    return 0


def table(found: Sensitivity, title: str) -> str:
    """The most sensitive layers as text, and the agreement that leaving them in float recovers."""
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
