"""Which teacher a cross-modal student learns from: and the training as it was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.datasets.split import Split
    from octc.store.runs import Run
    from octc.train.crossmodal.stages import Taught
    from octc.train.recipes.crossmodal import EyeRecipe


@dataclass(frozen=True)
class Request:
    """A training as it was asked for. seed: None takes the teacher's, else 0. teacher: a run, "none", or None (the newest).

    request: as run.json keeps it; changed: what of it differs from that of the run that goes on, and was allowed to.
    """

    kind: str
    dataset: str
    modality: str
    recipe: EyeRecipe
    seed: int | None
    device: str
    precision: str
    resume: Run | None
    allow_change: bool
    skip_bad: bool
    weights: Path | None
    fetch: bool
    trusted: bool = False
    teacher: str | None = None
    mutual: bool = False
    qat: bool = False
    request: dict[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """A teacher's run, as it was found."""

    run: Run
    facts: dict[str, Any]

    def taught(self) -> Taught:
        """Its checkpoint and its split."""
        from octc.datasets.split import read_split
        from octc.train.crossmodal.stages import Taught

        return Taught(self.run.path / "train", read_split(self.run.split))


def choose_eye_teacher(session: Session, asked: Request, modality: str, name: str | None) -> Chosen:
    """The teacher's run: as named, that of the run that goes on, or the newest of its recipe, modality and data set."""
    from octc.store.runs import find_run, scan_runs

    stored = {} if asked.resume is None else asked.resume.read()
    if name is None and stored.get("teacher_run") and modality != asked.modality:
        name = str(stored["teacher_run"])
    if name is None and stored.get("own_run") and modality == asked.modality:
        name = str(stored["own_run"])
    if name is not None:
        run = find_run(session.run_dir, name)
        session.say(f"✓ teacher   {run.id} (as asked)")
        return Chosen(run, run.read())
    runs = scan_runs(session.run_dir, "teacher", asked.dataset)
    for run in runs:
        facts = run.read()
        fits = (facts.get("task"), facts.get("modality"), facts.get("recipe", {}).get("name"))
        if facts.get("status") == "done" and fits == ("multilabel", modality, asked.recipe.name):
            session.say(f"✓ teacher   {run.id} (newest {modality} teacher of {asked.recipe.name}; choose with --teacher)")
            return Chosen(run, facts)
    text = f"no successful {modality} teacher of recipe {asked.recipe.name} on {asked.dataset}"
    more = f"octc train retnet-teacher --dataset {asked.dataset} --modality {modality} --recipe {asked.recipe.name}"
    found = ", ".join(run.id for run in runs[:10]) or "none"
    raise OctcError("OCT-E107", text, hint=f"{more}; or --teacher none", why=f"teacher runs: {found}")


def check_eye_teachers(asked: Request, split: Split, teacher: Chosen | None, own: Chosen | None) -> None:
    """Before any work: the modality of a teacher (E104), and that it has not seen who this student is judged on (E212)."""
    from octc.datasets.layouts.paired import check_partners
    from octc.train.recipes.crossmodal import OTHER

    for chosen, modality in ((teacher, OTHER[asked.modality]), (own, asked.modality)):
        if chosen is None:
            continue
        if (found := chosen.facts.get("modality")) != modality:
            text = f"{chosen.run.id} looks at {found or 'OCT'} images, a teacher of {modality} images is needed"
            raise OctcError("OCT-E104", text, hint=f"octc train retnet-teacher --modality {modality}", place="--teacher")
        check_partners(split, chosen.taught().split)
