"""`octc runs list | show`: lists the runs, and shows one of them."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.cli.list import list_
from octc.store.runs import artifact_folders, find_run

FIRST = ("id", "kind", "dataset", "status", "created", "seed", "teacher_run", "split_digest", "data_digest")


def list_runs(session: Session) -> int:
    """List runs, newest first, with what is missing for each (the same as octc list runs)."""
    return list_(session, "runs")


def show(
    session: Session,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, the beginning of one, or a path")],
) -> int:
    """Show one run: its inputs, stages and artifacts."""
    chosen = find_run(session.run_dir, run)
    session.run_id = chosen.id
    value = chosen.read()
    artifacts = [path.name for path in artifact_folders(chosen.artifacts)]
    session.report({**value, "artifacts": artifacts})
    recipe = value.get("recipe")
    lines = [f"{name:<13} {value[name]}" for name in FIRST if value.get(name) is not None]
    if isinstance(recipe, dict) and "name" in recipe:
        lines.append(f"{'recipe':<13} {recipe['name']}")
    for stage in value.get("stages") or ():
        facts = ", ".join(
            f"{key} {item}"
            for key, item in stage.items()
            if isinstance(item, (str, int, float)) and key not in ("stage", "time_utc")
        )
        lines.append(f"{stage.get('time_utc', '?')}  {stage.get('stage', '?')}{': ' + facts if facts else ''}")
    lines += [f"{'artifact':<13} {name}" for name in artifacts]
    session.result("\n".join(lines))
    return 0
