"""The history of a training as CSV, one row an epoch, written whole each time."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octc.errors import OctcError
from octc.files import write_bytes


def write_history(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """history.csv: epoch, train_loss and its parts, train_acc, val_loss, val_acc, lr."""
    columns = [name for name in rows[0] if name not in ("sha256", "seconds")]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(folder / "history.csv", text.getvalue().encode())


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of history.csv (OctcError E501 where two of its columns have one name)."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        names = list(reader.fieldnames or ())
        if len(set(names)) != len(names):
            text = "two columns of history.csv have one name"
            raise OctcError("OCT-E501", text, mend="restore the file, or train anew", place=str(folder / "history.csv"))
        return [{name: float(value) for name, value in row.items() if value != ""} for row in reader]
