"""How a student is taught: the options of `octc train student` that change the recipe's distillation, and several teachers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli.train_request import Request
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.datasets.split import Split
    from octc.store.runs import Run

Distil = Annotated[str | None, typer.Option(metavar="NAME", help="Loss against the teacher: kl, dist or dkd")]
Standardise = Annotated[
    bool | None, typer.Option("--standardise/--no-standardise", help="Standardise the logits of teacher and student first")
]
Calibrate = Annotated[
    bool | None, typer.Option("--calibrate/--no-calibrate", help="Divide the teacher's logits by the temperature that fits val")
]
CachedViews = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Keep the teacher's logits of N views an image; 0 asks it at every step")
]
FIELDS = {"standardise": "standardise", "calibrate": "calibrate", "cached_views": "views"}


def with_distillation(asked: Request, given: dict[str, Any]) -> Request:
    """The request with the distillation that the options name (E104 for a name that there is not).

    given: "distil", "standardise", "calibrate", "cached_views"; None leaves what the recipe, or the resumed run, has.
    """
    from octc.train.recipes.config import DISTILLATIONS

    name = given["distil"]
    if name is not None and name not in DISTILLATIONS:
        hint = f"one of: {', '.join(DISTILLATIONS)}"
        raise OctcError("OCT-E104", f"unknown distillation {name!r}", hint=hint, place="--distil")
    how = asked.recipe.distillation
    if name is not None:
        how = replace(how, kind=name)
        how = replace(how, **DISTILLATIONS[name])
    how = replace(how, **{field: given[key] for key, field in FIELDS.items() if given[key] is not None})
    changes = {key: given[key] for key in ("distil", *FIELDS) if given[key] is not None}
    return replace(asked, recipe=replace(asked.recipe, distillation=how), changes={**asked.changes, **changes})


def several(teacher: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The first teacher of a list A,B,..., and the other ones. A path with a comma in it is one teacher."""
    if teacher is None or "," not in teacher or Path(teacher).exists():
        return teacher, ()
    names = [name.strip() for name in teacher.split(",")]
    if len(set(names)) < len(names) or not all(names) or "none" in names:
        raise OctcError("OCT-E104", f"--teacher {teacher}", hint="different runs with a comma between them", place="--teacher")
    return names[0], tuple(names[1:])


def more_teachers(session: Session, asked: Request, split: Split) -> tuple[Path, ...]:
    """Checkpoint folders of the teachers besides the first: as asked, or those that a resumed run began with."""
    from octc.cli.train_teacher import check_taught, choose_teacher

    names = asked.more
    if not names and asked.teacher is None and asked.resume is not None:
        names = tuple(asked.resume.read().get("more_teachers", ()))
    folders = []
    for name in names:
        found = choose_teacher(session, replace(asked, teacher=name), None, split)
        if found is not None:
            if not asked.recipe.distillation.any_teacher:
                check_taught(found, split)
            folders.append(found.folder)
    return tuple(folders)


def note_more(run: Run, folders: tuple[Path, ...]) -> None:
    """Write into run.json which teachers there are besides the first, so that the run can go on with them."""
    if folders:
        run.update(more_teachers=[str(folder.resolve()) for folder in folders])
