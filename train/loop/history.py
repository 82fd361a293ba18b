"""The history of a training as CSV, one row an epoch, written whole each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octc.core.csv_files import csv_bytes, read_csv
from octc.core.errors import OctcError
from octc.core.files import write_bytes


def write_history(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """history.csv: epoch, train_loss and its parts, train_acc, val_loss, val_acc, lr."""
    columns = [name for name in rows[0] if name not in ("sha256", "seconds")]
    write_bytes(folder / "history.csv", csv_bytes(columns, [[row.get(name) for name in columns] for row in rows]))


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of history.csv (OctcError E501 where two of its columns have one name)."""
    columns, *rows = read_csv(folder / "history.csv")
    if len(set(columns)) != len(columns):
        text = "two columns of history.csv have one name"
        raise OctcError("OCT-E501", text, hint="restore the file, or train anew", place=str(folder / "history.csv"))
    return [{name: float(cell) for name, cell in zip(columns, row, strict=True) if cell != ""} for row in rows]
