"""What is on this machine, for whoever wants to choose: data sets and runs, each with what is missing for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from octc.core.errors import OctcError
from octc.datasets.registry import DATASETS, find_root
from octc.schemas.commands import DatasetRow, RunRow
from octc.store.runs import Run, artifact_folders, read_runs, unread_runs


def list_datasets(data: str | None, environ: Mapping[str, str]) -> list[DatasetRow]:
    """Known data sets with the folder where each lies here. data: a root that counts before any other."""
    rows = []
    for name, spec in DATASETS.items():
        root, missing = None, []
        try:
            root = str(find_root(name, data, environ))
        except OctcError as error:
            missing = [error.hint]
        rows.append(DatasetRow(dataset=name, root=root, what=spec.title, missing=missing))
    return rows


def list_runs(run_dir: Path) -> list[RunRow]:
    """Runs, the newest first; behind them those of which nobody can read what they are."""
    rows = []
    for run, value in read_runs(run_dir):
        artifacts = _artifacts(run)
        missing = [] if artifacts else [f"octc export {run.id}" if value.get("status") == "done" else "not finished"]
        facts = {key: value.get(key) for key in ("kind", "dataset", "status", "created")}
        rows.append(RunRow(run=run.id, **facts, artifacts=artifacts, missing=missing))
    for run, error in unread_runs(run_dir):
        facts = dict.fromkeys(("kind", "dataset", "status", "created"))
        rows.append(RunRow(run=run.id, **facts, artifacts=_artifacts(run), missing=[f"{error.message}: {error.hint}"]))
    return rows


def _artifacts(run: Run) -> list[str]:
    return [path.name for path in artifact_folders(run.artifacts)]
