"""What reading a volume costs beside the engine: `octc predict` of volumes, time, memory, and the time to the first label.

    python benchmarks/volumes.py ARTIFACT [--frames N] [--size COLUMNSxROWS] [--rounds N] [--others PYTHON]

1. The ratio of a whole OPT volume to its labels, with reading, decoding, preparing and the engine overlapped as `octc predict`
   has it, to the engine alone on prepared images; both are taken in turn in one run: the median of the rounds with its range.
2. The peak of resident memory of a process that answers for a volume of one, N and 4 N B-scans, and the ratio to that of one.
3. With --others, an interpreter in which oct-converter (0.7, numpy below 2.3) and eyepy are installed: the time from the name
   of a file to the first label of octc, and to the loaded volume of those readers, in turn, for each format that they read.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import octc
from octc.datasets.synthetic.volumes import WRITERS, DrawnEye, draw_eye_volume
from octc.machine.memory import rss_peak_mib
from octc.runtimes.predict import Scan, decoded
from octc.runtimes.registry import choose_threads, open_runtime
from octc.runtimes.scans import Reading, opened

BATCH = 8
# format -> reader of another library -> how it loads a volume
OTHERS = {
    "vol": {"eyepy": "import eyepy\ndef load(p): return eyepy.import_heyex_vol(p).data.shape"},
    "e2e": {
        "eyepy": "import eyepy\ndef load(p): return eyepy.import_heyex_e2e(p).data.shape",
        "oct-converter": "from oct_converter.readers import E2E\ndef load(p): return len(E2E(p).read_oct_volume())",
    },
    "fda": {
        "oct-converter": "from oct_converter.readers import FDA\ndef load(p): return FDA(p).read_oct_volume().volume[0].shape"
    },
}
LOOP = """
import sys, time, warnings, logging
warnings.simplefilter("ignore"); logging.disable()
{load}
for line in sys.stdin:
    start = time.perf_counter()
    try:
        load(line.strip()); answer = time.perf_counter() - start
    except BaseException as error:
        answer = f"{{type(error).__name__}}: {{error}}".splitlines()[0][:100]
    sys.stderr.write(f"ANSWER {{answer}}\\n"); sys.stderr.flush()
"""


def written(folder: Path, kind: str, frames: int, size: tuple[int, int]) -> Path:
    """A volume of so many frames (of seven drawn ones, in turn)."""
    seven = draw_eye_volume("CNV", 1, "L", frames=min(7, frames), size=size)
    many = np.concatenate([seven.frames] * (-(-frames // len(seven.frames))))[:frames]
    ending, write = WRITERS[kind]
    path = folder / f"{frames}{ending}"
    drawn: DrawnEye = replace(seven, frames=many, patient="SYN")
    write(drawn, path)
    return path


def shares(artifact: Path, path: Path, rounds: int) -> str:
    """A volume to its labels against the engine alone."""
    with octc.load(artifact) as model:
        scans = [one for one in opened([path], Reading()) if isinstance(one, Scan)]
        runtime = open_runtime(artifact, model.artifact, threads=choose_threads(None), batch=BATCH)
        images = np.concatenate([model.preprocess.prepare(decoded(one).image) for one in scans])
        whole, alone = [], []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            model.predict([path])
            middle = time.perf_counter()
            for first in range(0, len(images), BATCH):
                runtime(images[first : first + BATCH])
            whole.append(middle - start)
            alone.append(time.perf_counter() - middle)
        runtime.close()
    ratios = sorted(a / b for a, b in zip(whole[1:], alone[1:], strict=True))
    return (
        f"{len(scans)} B-scans: volume to labels {statistics.median(whole[1:]) * 1000:.0f} ms, engine "
        f"{statistics.median(alone[1:]) * 1000:.0f} ms, ratio {statistics.median(ratios):.2f} "
        f"[{ratios[0]:.2f}, {ratios[-1]:.2f}] of {rounds} rounds"
    )


def peak(artifact: Path, path: Path) -> float:
    """Peak of resident memory of a process that answers for a volume, MiB."""
    command = [sys.executable, __file__, str(artifact), "--peak-of", str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def answered(artifact: Path, path: Path) -> None:
    """What that process does."""
    with octc.load(artifact) as model:
        for _ in model.iter_predict([path]):
            pass
    sys.stdout.write(f"{rss_peak_mib()}\n")  # not ru_maxrss, which a child inherits from whoever started it


def first_label(model: octc.Model, path: Path) -> float:
    """Seconds from the name of a file to the first label."""
    start = time.perf_counter()
    records = model.iter_predict([path], batch=1)
    next(records)
    found = time.perf_counter() - start
    records.close()  # type: ignore[attr-defined]
    return found


def beside(artifact: Path, python: str, kind: str, path: Path, rounds: int) -> list[str]:
    """octc to the first label and each other reader to the loaded volume, in turn."""
    lines = []
    for name, load in OTHERS[kind].items():
        process = subprocess.Popen(
            [python, "-c", LOOP.format(load=load)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        mine, theirs, failed = [], [], ""
        with octc.load(artifact) as model:
            for _ in range(rounds + 1):
                mine.append(first_label(model, path))
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
                answer = next((line for line in process.stderr if line.startswith("ANSWER ")), "ANSWER it ended")[7:].strip()
                try:
                    theirs.append(float(answer))
                except ValueError:
                    failed = answer
                    break
        process.stdin.close()
        process.wait()
        if failed:
            lines.append(f"{kind}: {name} does not load it ({failed})")
            continue
        ratio = statistics.median(b / a for a, b in zip(mine[1:], theirs[1:], strict=True))
        ours, other = (statistics.median(times[1:]) * 1000 for times in (mine, theirs))
        lines.append(f"{kind}: first label of octc {ours:.0f} ms, {name} loads it in {other:.0f} ms, ratio {ratio:.1f}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--size", default="512x496")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--others", metavar="PYTHON")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak_of is not None:
        answered(asked.artifact, asked.peak_of)
        return 0
    columns, rows = (int(number) for number in asked.size.split("x"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = written(folder, "dicom", asked.frames, (columns, rows))
        sys.stdout.write(f"OPT, {rows} x {columns}; {shares(asked.artifact, path, asked.rounds)}\n")
        sizes = (1, asked.frames, 4 * asked.frames)
        peaks = [peak(asked.artifact, written(folder, "dicom", count, (columns, rows))) for count in sizes]
        for count, most in zip(sizes, peaks, strict=True):
            sys.stdout.write(f"{count} B-scans: peak of resident memory {most:.0f} MiB, ratio {most / peaks[0]:.2f}\n")
        for kind in OTHERS if asked.others else ():
            path = written(folder, kind, asked.frames, (columns, rows))
            for line in beside(asked.artifact, asked.others, kind, path, asked.rounds):
                sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
