"""What is on this machine, for whoever wants to choose: data sets and runs, each with what is missing for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from octc.core.errors import OctcError
from octc.datasets.registry import DATASETS, find_root
from octc.schemas.commands import DatasetRow, RunRow
from octc.store.artifacts import MANIFEST
from octc.store.runs import scan_runs


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
    """Runs, the newest first."""
    rows = []
    for run in scan_runs(run_dir):
        value = run.read()
        artifacts = sorted(path.parent.name for path in run.artifacts.glob(f"*/{MANIFEST}"))
        missing = [] if artifacts else [f"octc export {run.id}" if value.get("status") == "done" else "not finished"]
        facts = {key: value.get(key) for key in ("kind", "dataset", "status", "created")}
        rows.append(RunRow(run=run.id, **facts, artifacts=artifacts, missing=missing))
    return rows
