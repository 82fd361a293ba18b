"""The main job on real images, measured: data check, teacher, student, export, verify, bench, predict, and a table of it all.

    make real DATA=DIR          (python benchmarks/real.py --data DIR [--place DIR] [--tiny])

Every step is an `octc` command that is shown before it runs. A step that was finished before in the same place is passed
over, so that an interrupted job goes on. The test images are read by `octc verify` alone, after everything was chosen.
--tiny: the recipe `smoke`, no gate, a bench of seconds; its table means nothing, and shows that the commands work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from results import results_table

from octc.core.files import read_json, write_bytes, write_json
from octc.store.runs import newest_run, scan_runs

DATASET = "ucsd"
# 826 images cannot decide the default margins of 1 and 3 points: these are stated here, before anything is looked at
MARGINS = ("--margin", "2", "--class-margin", "5")


# what --tiny adds to a command
TINY = {
    "recipe": ("--recipe", "smoke"), "student": ("--any-teacher",), "gate": ("--no-gate", "--allow-fallback"),
    "verify": ("--bootstrap", "1000"),
    "bench": ("--max-duration", "1s", "--duration", "0.1s", "--min-queries", "4"),
}  # fmt: skip


def steps(teacher: str, student: str, tiny: bool = False) -> list[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """(name, words of `octc`, exit codes that go on). 1 is a verdict or an INVALID row: it stands in the table.

    With `tiny` a network may have learned nothing: its INT8 file is refused (1), its reference is at chance (3).
    """
    more: dict[str, tuple[str, ...]] = TINY if tiny else {"recipe": ("--recipe", "edge")}
    recipe, gate = more["recipe"], more.get("gate", ())
    return [
        ("check", ("data", "check", DATASET), (0,)),
        ("teacher", ("train", "teacher", "--dataset", DATASET, *recipe), (0,)),
        ("student", ("train", "student", "--dataset", DATASET, *recipe, *more.get("student", ())), (0,)),
        ("export teacher", ("export", teacher, "--target", "all"), (0,)),
        *(
            (f"export student {t}".removesuffix(" all"), ("export", student, "--target", t, *gate), (0, 1) if tiny else (0,))
            for t in (("onnx", "openvino") if tiny else ("all",))
        ),
        # what tuning buys: the same network calibrated after training, by octc and by NNCF; 1: the gate refused it
        ("export ptq", ("export", student, "--int8", "--target", "openvino", "--ptq", "octc", *gate), (0, 1)),
        ("export nncf", ("export", student, "--int8", "--target", "openvino", "--ptq", "nncf", *gate), (0, 1)),
        ("verify", ("verify", student, *MARGINS, "--tta", "5", *more.get("verify", ())), (0, 1, 3) if tiny else (0, 1)),
        ("bench", ("bench", student, "--quick", *more.get("bench", ())), (0, 1)),
    ]


def run_step(place: Path, data: Path, name: str, words: tuple[str, ...], allowed: tuple[int, ...]) -> dict[str, Any]:
    """Run one command to its end; its seconds and exit code."""
    sys.stderr.write(f"\n$ octc {' '.join(words)}\n")
    sys.stderr.flush()
    start = time.monotonic()
    environ = {**os.environ, "OCTC_DATA": str(data.resolve())}
    with (place / f"{name.replace(' ', '-')}.txt").open("w", encoding="utf-8") as out:
        done = subprocess.run(
            [sys.executable, "-m", "octc.cli._app.main", *words], cwd=place, env=environ, stdout=out, check=False
        )  # fmt: skip
    seconds = time.monotonic() - start
    sys.stderr.write((place / f"{name.replace(' ', '-')}.txt").read_text(encoding="utf-8"))
    sys.stderr.write(f"  {name}: exit {done.returncode} after {seconds:.0f} s\n")
    if done.returncode not in allowed:
        sys.exit(done.returncode)
    return {"command": f"octc {' '.join(words)}", "seconds": round(seconds, 1), "exit": done.returncode}


def newest(place: Path, kind: str) -> str:
    """The finished run of a kind, or its name-to-be while there is none."""
    runs = scan_runs(place / "runs", kind, DATASET)
    return newest_run(place / "runs", kind, DATASET).id if any(r.read().get("status") == "done" for r in runs) else kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with CellData/OCT/{train,test}/CLASS/")
    parser.add_argument("--place", type=Path, default=Path("runs/real"), help="where everything is written (runs/real)")
    parser.add_argument("--tiny", action="store_true", help="the recipe smoke: to see that it works")
    chosen = parser.parse_args()
    place: Path = chosen.place
    place.mkdir(parents=True, exist_ok=True)
    log = place / "steps.json"
    done: dict[str, Any] = read_json(log) if log.is_file() else {}
    for name in [name for name, _, _ in steps("", "", chosen.tiny)]:
        if name in done:
            sys.stderr.write(f"{name}: done before in {done[name]['seconds']} s\n")
            continue
        now = steps(newest(place, "teacher"), newest(place, "student"), chosen.tiny)
        found = {step: (words, allowed) for step, words, allowed in now}
        done[name] = run_step(place, chosen.data, name, *found[name])
        write_json(log, done)
    table = results_table(place, DATASET)
    total = sum(step["seconds"] for step in done.values())
    spent = ", ".join(f"{name} {step['seconds']:.0f} s" for name, step in done.items())
    text = f"{table}\nAll steps: {total / 60:.0f} minutes ({spent}).\n"
    write_bytes(place / "results.md", text.encode())
    sys.stdout.write(text)
    sys.stdout.write(json.dumps({"minutes": round(total / 60, 1), "results": str(place / "results.md")}) + "\n")


if __name__ == "__main__":
    main()
