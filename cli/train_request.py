"""A training as it was asked for: what `octc train` reads from options, and everything after it works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli.session import Session
from octc.errors import OctcError

if TYPE_CHECKING:
    from octc.train.recipes import Recipe


@dataclass(frozen=True)
class Request:
    """A training as it was asked for. teacher: a run, a file or "none"; None takes the newest fitting run."""

    kind: str
    dataset: str
    recipe: Recipe
    seed: int
    changes: dict[str, Any]
    device: str
    precision: str
    auto_batch: bool
    resume: str | None
    allow_change: bool
    skip_bad: bool
    weights: Path | None
    fetch: bool
    teacher: str | None = None
    with_teacher: bool = False
    qat: bool = True


def find_unfinished(session: Session, kind: str, name: str) -> Any:
    """The run that `--resume` means: by name, or the newest unfinished one of its kind."""
    from octc.run import find_run, scan_runs

    if name != "newest":
        return find_run(session.run_dir, name)
    runs = scan_runs(session.run_dir, kind)
    for run in runs:
        if run.read().get("status") != "done":
            session.say(f"using run {run.id} (newest unfinished {kind}; choose with --resume RUN)")
            return run
    listed = ", ".join(run.id for run in runs[:10]) or "none"
    text = f"no unfinished {kind} run"
    raise OctcError("OCT-E107", text, mend=f"octc train {kind} --dataset NAME", why=f"finished: {listed}")
