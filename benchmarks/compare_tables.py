"""Time and memory of `octc compare` on two large prediction tables: rows, patients and classes as asked.

python benchmarks/compare_tables.py --rows 1000000 --patients 100000

Prints one JSON object: seconds (of the clock and of the processor), the largest resident memory of the process that compared,
and what it said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from octc.core.files import parse_json


def write_tables(folder: Path, rows: int, patients: int, classes: int, seed: int, *, scores: bool) -> tuple[Path, Path]:
    """Two CSV files: probabilities of a classifier and of one that is nearly its equal, errors correlated within patients."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    whose = rng.integers(0, patients, rows)
    hard = rng.normal(0, 1.0, patients)[whose]
    logits = (
        4.0 * np.eye(classes)[labels]
        + rng.normal(0, 1.0, (rows, classes))
        - np.maximum(hard, 0)[:, None] * np.eye(classes)[labels]
    )
    paths = []
    for name, noise in (("before.csv", 0.0), ("after.csv", 0.15)):
        own = logits + noise * rng.normal(0, 1.0, logits.shape)
        p = np.exp(own - own.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        path = folder / name
        order = rng.permutation(rows)
        with path.open("w") as stream:
            heads = [f"p_c{k}" for k in range(classes)] if scores else ["prediction"]
            stream.write(",".join(["id", "truth", "patient", *heads]) + "\n")
            for i in order.tolist():
                said = ",".join(f"{v:.6f}" for v in p[i]) if scores else f"c{int(p[i].argmax())}"
                stream.write(f"img{i:08d},c{labels[i]},pat{whose[i]},{said}\n")
        paths.append(path)
    return paths[0], paths[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--answers", action="store_true", help="one class a row, no scores")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        how = partial(
            write_tables, Path(place), given.rows, given.patients, given.classes, given.seed, scores=not given.answers
        )
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # a process counts what its parent held when it began
            tables = apart.submit(how).result()
        size = sum(path.stat().st_size for path in tables)
        words = [
            sys.executable,
            "-m",
            "octc.cli._app.main",
            "compare",
            *map(str, tables),
            "--margin",
            "2",
            "--json",
            "--run-dir",
            f"{place}/runs",
        ]
        start = time.monotonic()
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)  # of this process alone
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        if not said:
            sys.exit(process.returncode)
        data = parse_json(said)["data"]
    told = {
        "rows": given.rows,
        "patients": given.patients,
        "classes": given.classes,
        "form": data["form"],
        "mib_read": round(size / 2**20, 1),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        "verdict": data["verdict"]["word"],
        "difference_pp": data["accuracy"]["difference_pp"],
        "deciding_pp": data["accuracy"]["deciding"],
    }
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
