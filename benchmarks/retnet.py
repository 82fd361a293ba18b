"""Does a student gain from a teacher of the other modality? Drawn images, single against cross-modal, paired by eye.

python benchmarks/retnet.py --place DIR [--patients 120] [--images 1] [--seeds 1] [--first-seed 0] [--epochs N] [--int8]
python benchmarks/retnet.py --place DIR --full [--tiny]

Draws paired phantoms, trains for every seed a fundus teacher, an OCT student on labels alone and an OCT student of that
teacher, reads the test part once for each, and prints mAP and the paired patient bootstrap of their difference. --int8 tunes
the cross-modal student of the last seed quantisation-aware, exports FP32 and INT8, verifies on the test part, and prints sizes
and the ratio of their latencies. --full prints those of QD-RetNet's student as specified (ResNet-50 at 448 px, random weights).
--tiny: no gate, a bench of seconds and, with --full, a test network at 64 px: to see that it works.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from full_size import TINY_BENCH, random_run, tiny_stage

from octc.core.csv_files import read_csv
from octc.core.files import parse_json
from octc.datasets.synthetic.bscans import write_phantoms
from octc.stats.average_precision import map_difference, map_interval
from octc.stats.multilabel import Eyes, by_eye, mean_ap, sigmoid
from octc.train.recipes.crossmodal import retnet

NAME = "paired-phantom"


def say(text: str) -> None:
    """A line of the result, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def octc(place: Path, *words: str) -> dict[str, Any]:
    """Run a command in `place`; its document. A command that fails ends the benchmark, unless it is a verdict (exit code 1)."""
    command = [sys.executable, "-m", "octc.cli._app.main", *words, "--json", "--quiet"]
    done = subprocess.run(command, cwd=place, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(words)}\n{done.stderr[-2000:]}{done.stdout[-2000:]}")
    document: dict[str, Any] = parse_json(done.stdout)
    return document


def eyes_of(folder: Path) -> Eyes:
    """Stored predictions of an evaluation, by eye."""
    head, *rows = read_csv(folder / "predictions.csv")
    classes = [name.split(" ")[-1] for name in head[5:]]
    logits = np.array([[float(cell) for cell in row[5:]] for row in rows])
    truth = np.array([[name in row[4].split(" ") for name in classes] for row in rows])
    return by_eye(sigmoid(logits), truth, [row[2] for row in rows], [row[3] for row in rows])


def mean_of(several: list[Eyes]) -> Eyes:
    """The scores of several seeds' students on the same eyes, averaged."""
    first = several[0]
    return Eyes(first.names, np.mean([one.scores for one in several], axis=0), first.truth, first.patients)


def line(name: str, eyes: Eyes) -> str:
    low, high = map_interval(eyes) or (0.0, 0.0)
    return f"{name:<28} mAP {100 * (mean_ap(eyes.scores, eyes.truth) or 0):6.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def compared(one: Eyes, other: Eyes) -> str:
    difference, interval = map_difference(one, other)
    low, high = interval or (0.0, 0.0)
    return f"cross-modal minus single: {100 * (difference or 0):+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] points of mAP"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True)
    for option, default in (("patients", 120), ("images", 1), ("seeds", 1), ("first-seed", 0), ("epochs", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--recipe", default="retnet-edge")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--full", action="store_true", help="only sizes and latencies of the full-size student")
    parser.add_argument("--tiny", action="store_true", help="a bench of seconds, to see that it works")
    asked = parser.parse_args()
    asked.place.mkdir(parents=True, exist_ok=True)
    asked.place = asked.place.resolve()  # commands run inside it
    if asked.full:
        write_phantoms(asked.place / "phantoms", 24, 12, 0)
        stage = tiny_stage(retnet().student) if asked.tiny else retnet().student
        report_files(asked.place, random_run(asked.place, "student", stage, None).id, full=True, tiny=asked.tiny)
        return
    if not (asked.place / "Dataset" / NAME).is_dir():
        octc(asked.place, "data", NAME, "--patients", str(asked.patients), "--images", str(asked.images))
    more = ["--epochs", str(asked.epochs)] if asked.epochs else []
    found: dict[str, list[Eyes]] = {"single": [], "cross": []}
    last = ""
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    for seed in seeds:
        common = ["--dataset", NAME, "--recipe", asked.recipe, "--seed", str(seed), *more]
        teacher = octc(asked.place, "train", "retnet-teacher", *common, "--modality", "fundus")["run_id"]
        held = octc(asked.place, "eval", teacher, "--split", "test")["data"]["folder"]
        say(line(f"seed {seed} fundus teacher", eyes_of(asked.place / held)))
        for kind, how in (("single", ["--teacher", "none"]), ("cross", ["--teacher", teacher])):
            qat = ["--qat"] if asked.int8 and kind == "cross" and seed == seeds[-1] else []
            run = octc(asked.place, "train", "retnet-student", *common, "--modality", "oct", *how, *qat)["run_id"]
            held = octc(asked.place, "eval", run, "--split", "test")["data"]["folder"]
            found[kind].append(eyes_of(asked.place / held))
            say(line(f"seed {seed} OCT student, {kind}", found[kind][-1]))
            last = run
        say(compared(found["single"][-1], found["cross"][-1]))
    if asked.seeds > 1:
        say(f"scores averaged over {asked.seeds} seeds: {compared(mean_of(found['single']), mean_of(found['cross']))}")
    if asked.int8:
        report_int8(asked.place, last, tiny=asked.tiny)


def report_files(place: Path, run: str, *, full: bool = False, tiny: bool = False) -> Path:
    """Export FP32 and INT8; their sizes, and their latencies in turns. Returns the INT8 artifact for OpenVINO.

    full: a network of random weights, which no gate judges, and whose rows end after 45 s (the ratio has its own blocks).
    """
    gate, limit = (("--no-gate",), ("--quick", "--max-duration", "45s")) if full else ((), ("--quick",))
    if tiny:
        gate, limit = ("--no-gate",), TINY_BENCH
    folder = place / "runs" / run / "artifacts"
    for target, precision in (("openvino", "--fp32"), ("openvino", "--int8"), ("onnx", "--fp32"), ("onnx", "--int8")):
        octc(place, "export", run, "--target", target, precision, *(gate if precision == "--int8" else ()))
        if not (folder / f"{target}-{precision.removeprefix('--')}").is_dir():
            sys.exit(f"the gate refused {target} {precision}: there is nothing to measure")
    for target in ("openvino", "onnx"):
        sizes = {p: sum(f.stat().st_size for f in (folder / f"{target}-{p}").glob("model.*")) for p in ("fp32", "int8")}
        share = sizes["int8"] / sizes["fp32"]
        say(f"{target}: FP32 {sizes['fp32']:,} bytes, INT8 {sizes['int8']:,} bytes, ratio {share:.3f}")
        pair = [str(folder / f"{target}-{precision}") for precision in ("fp32", "int8")]
        timed = octc(place, "bench", *pair, "--vs", "none", "--batch", "1", *limit)["data"]
        for one in timed["comparisons"]:
            say(f"{target}: {one['text']} ({one['candidate_row']}, {one['status']})")
    return folder / "openvino-int8"


def report_int8(place: Path, run: str, *, tiny: bool = False) -> None:
    """Sizes, latencies, decisions and mAP of the exported files."""
    document = octc(place, "verify", str(report_files(place, run, tiny=tiny)))
    one = document["data"]["artifacts"][0]
    shown = one["decisions"]
    say(
        f"INT8 against FP32 on test: mAP {shown['map']['reference']:.2f} -> {shown['map']['candidate']:.2f}, "
        f"D {shown['map_difference_pp']:+.2f} {shown['map_difference_interval_pp']}, decisions equal "
        f"{100 * shown['agreement']:.2f} %, verdict {one['verdict']['word']}"
    )


if __name__ == "__main__":
    main()
