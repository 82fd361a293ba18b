"""A training as it was asked for: what `octc train` reads from options, and everything after it works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.store.runs import Run
    from octc.train.recipes.registry import Recipe


@dataclass(frozen=True)
class Request:
    """A training as it was asked for. resume: the unfinished run that goes on. auto_batch: the batch may be halved.

    teacher: a run, a file or "none"; None takes the newest fitting run. folds: of a cross-validation, or None; fold: the one
    that is trained (from 1), None for all. protocol: of the split. job: name of the cross-validation that a fold belongs to;
    member: it is trained by the command of that job. more: teachers besides the first one. request: as run.json keeps it;
    changed: what of it differs from that of the run that goes on, and was allowed to. retrain: the first
    stage goes on too, although it is done.
    """

    kind: str
    dataset: str
    recipe: Recipe
    seed: int
    changes: dict[str, Any]
    device: str
    precision: str
    resume: Run | None
    allow_change: bool
    skip_bad: bool
    weights: Path | None
    fetch: bool
    trusted: bool = False
    teacher: str | None = None
    with_teacher: bool = False
    qat: bool = True
    folds: int | None = None
    fold: int | None = None
    protocol: str = "clean"
    job: str | None = None
    member: bool = False
    auto_batch: bool = False
    more: tuple[str, ...] = ()
    request: dict[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    retrain: bool = False

    @property
    def place(self) -> tuple[int, int] | None:
        """Fold and how many, where it is one fold that is trained."""
        return None if self.folds is None or self.fold is None else (self.fold, self.folds)

    def again(self, run: str) -> str:
        """How an interrupted training goes on."""
        return "the same command" if self.member else f"octc train {self.kind} --resume {run}"


def find_unfinished(session: Session, kind: str, name: str) -> Run:
    """The run that `--resume` means: by name, or the newest unfinished one of its kind."""
    from octc.store.runs import find_run, scan_runs

    if name != "newest":
        return find_run(session.run_dir, name)
    runs = scan_runs(session.run_dir, kind)
    for run in runs:
        if run.read().get("status") != "done":
            session.say(f"using run {run.id} (newest unfinished {kind}; choose with --resume RUN)")
            return run
    listed = ", ".join(run.id for run in runs[:10]) or "none"
    text = f"no unfinished {kind} run"
    raise OctcError("OCT-E107", text, hint=f"octc train {kind} --dataset NAME", why=f"finished: {listed}")
