"""The first label of one image from a cold process: `octc predict ARTIFACT IMAGE`, from its start to its end.

    python benchmarks/cold_start.py IMAGE ARTIFACT... [--against PYTHON] [--rounds N]

Each round starts every process once, in turn, with the files in the page cache. --against names the interpreter of another octc
(a virtual environment of an earlier revision), which is started beside this one on the same artifacts: the ratio is that of the
medians, with the range of the rounds. The answers of both must be equal. Of an engine with a cache of compiled networks, the
first start is given by itself, and the rounds read the cache, in a folder of this program. One JSON line with the conditions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from octc.machine.cpu import read_flags, usable_threads

RUN = ("-m", "octc.cli._app.main", "predict")


def started(python: str, artifact: Path, image: Path, cache: str, folder: str) -> tuple[float, str]:
    """Seconds of a process, and what it printed."""
    command = [python, *RUN, str(artifact), str(image)]
    environ = {**os.environ, "OCTC_COMPILED": cache}
    start = time.perf_counter()
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environ, cwd=folder)
    return time.perf_counter() - start, found.stdout


def measured(artifact: Path, image: Path, pythons: dict[str, str], rounds: int) -> dict[str, Any]:
    """Medians and ratios of an artifact."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {name: "off" if name == "against" else f"{folder}/compiled" for name in pythons}
        first = dict.fromkeys(pythons, 0.0)
        times: dict[str, list[float]] = {name: [] for name in pythons}
        said: set[str] = set()
        for number in range(rounds + 1):
            for name, python in pythons.items():
                seconds, text = started(python, artifact, image, caches[name], folder)
                said.add(text)
                if number:
                    times[name].append(seconds)
                else:
                    first[name] = seconds
    if len(said) != 1:
        raise SystemExit(f"{artifact}: the answers differ: {said}")
    found: dict[str, Any] = {"artifact": artifact.name, "first_ms": round(1000 * first["octc"])}
    found |= {f"{name}_ms": round(1000 * statistics.median(values)) for name, values in times.items()}
    if "against" in times:
        ratios = sorted(a / b for a, b in zip(times["octc"], times["against"], strict=True))
        ratio = statistics.median(times["octc"]) / statistics.median(times["against"])
        found |= {"ratio": round(ratio, 3), "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)]}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--against", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    pythons = {"octc": sys.executable, **({"against": asked.against} if asked.against else {})}
    rows = [measured(one.resolve(), asked.image.resolve(), pythons, asked.rounds) for one in asked.artifacts]
    conditions = {"processor": read_flags()[0], "threads": usable_threads()[0], "python": platform.python_version()}
    conditions |= {"load": round(os.getloadavg()[0], 2), "rounds": asked.rounds}
    sys.stdout.write(json.dumps({"cold_start": rows, **conditions}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
