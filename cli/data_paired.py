"""`octc data paired-synthetic`: synthetic OCT and fundus images of the same eyes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.progress import counting


def paired_phantom(
    session: Session,
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="Output folder (./Dataset/paired-phantom)")] = None,
    patients: Annotated[int, typer.Option(min=8, help="Patients, two eyes each")] = 120,
    images: Annotated[int, typer.Option(min=1, help="Images per eye and modality")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; the same seed gives the same images")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace existing images")] = False,
) -> int:
    """Generate OCT and fundus images of the same eyes in the layout of TOPCON-MM, with six labels (several per image).

    A quarter is the test part. The images say nothing about real patients.
    """
    from octc.datasets.registry import spec_of
    from octc.datasets.synthetic.paired import write_paired

    root = Path(folder or session.data or str(spec_of("paired-phantom").default_root))
    with counting(session, "drawing") as step:
        total = write_paired(root, patients, images, seed, force=force, progress=step)
    session.report({"root": str(root), "images": total, "patients": patients, "seed": seed})
    session.result(f"{total} images of {2 * patients} synthetic eyes in {root}")
    chosen = "" if root == Path(str(spec_of("paired-phantom").default_root)) else f" --data {root}"
    session.say(f"next: octc train retnet-teacher --dataset paired-phantom --modality fundus --recipe retnet-edge{chosen}")
    return 0
