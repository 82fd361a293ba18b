"""What an archive costs: `octc predict --out` beside what bounds it and beside other ways to the same answers.

    python benchmarks/archive.py ARTIFACT IMAGES [--fp32 ARTIFACT] [--count 1200] [--rounds 3] [--rows 100000]
    python benchmarks/archive.py TINY --million [--rows 1000000] [--links 0.1]

One process after another, in turns (ABBA): decoding alone and the engine alone (each on all cores: the slower one is the
bound), `octc predict --out`, `octc predict --batch 8` (in memory), a loop of Pillow and onnxruntime on the FP32 file (one
image at a time, as tutorials have it), and the Ray Data pipeline of its documentation (same file; not with `--no-ray`). A
process of each kind starts anew; what it needs to start is subtracted (a run on few images). Prints one JSON line: images a
second of each (null where the machine was too busy to tell), processor time an image (`_cpu_ms`), ratios of medians.
`ratio_vs_sum`: against decoding and engine one after the other on the same cores, which is what a machine without a GPU can
do at best. `rss_growth_mb`: peak memory of the parent with --rows rows (hard links of the images) over that with a tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from octc.core.files import parse_json
from octc.datasets.synthetic.volumes import WRITERS, DrawnEye

LITTLE = 216  # images of a run that measures the start: as many units as start every process
SIDE, SOURCES, FRAMES, VOLUMES = 32, 40, 1000, 8  # of --million: px; pictures, B-scans of a volume, and volumes that are drawn
IMAGES = (".jpeg", ".jpg", ".png", ".tif", ".bmp")

DECODE = """
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from octc.imaging.decode import read_image
from octc.store.artifacts import read_artifact
pre = read_artifact(Path(sys.argv[1])).preprocess
def one(path):
    return pre.prepare(read_image(Path(path)).image).shape
if __name__ == "__main__":
    with ProcessPoolExecutor(int(sys.argv[3])) as pool:
        print(len(list(pool.map(one, sorted(map(str, Path(sys.argv[2]).rglob("*.*"))), chunksize=8))))
"""
ENGINE = """
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import numpy as np
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import read_artifact
def work(count):
    folder = Path(sys.argv[1])
    artifact = read_artifact(folder)
    runtime = open_runtime(folder, artifact, threads=1, batch=8)
    pre = artifact.preprocess
    batch = np.random.default_rng(0).integers(0, 255, (8, pre.channels, pre.size, pre.size), np.uint8)
    for _ in range(count // 8):
        runtime(batch)
if __name__ == "__main__":
    count, workers = sum(1 for _ in Path(sys.argv[2]).rglob("*.*")), int(sys.argv[3])
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(work, [count // workers] * workers))
"""
LOOP = """
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime
from PIL import Image
folder = Path(sys.argv[1])
pre = json.loads((folder / "artifact.json").read_text())["preprocess"]
session = onnxruntime.InferenceSession(str(folder / json.loads((folder / "artifact.json").read_text())["main_file"]))
name = session.get_inputs()[0].name
for path in sorted(Path(sys.argv[2]).rglob("*.*")):
    image = Image.open(path).convert("L" if pre["channels"] == 1 else "RGB").resize((pre["size"],) * 2)
    array = np.asarray(image)
    array = array[None, None] if array.ndim == 2 else array.transpose(2, 0, 1)[None]
    session.run(None, {name: np.ascontiguousarray(array)})
"""
RAY = """
import json, os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from pathlib import Path
import numpy as np
import ray
ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
folder = Path(sys.argv[1])
manifest = json.loads((folder / "artifact.json").read_text())
pre = manifest["preprocess"]
class Classifier:
    def __init__(self):
        file = str(folder / manifest["main_file"])
        if file.endswith(".xml"):
            import openvino
            compiled = openvino.compile_model(file, "CPU")
            self.run = lambda images: compiled(images)[0]
        else:
            import onnxruntime
            session = onnxruntime.InferenceSession(file)
            self.run = lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]
    def __call__(self, batch):
        images = np.stack(list(batch["image"]))
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        return {"path": batch["path"], "logits": self.run(np.ascontiguousarray(images))}
mode = "L" if pre["channels"] == 1 else "RGB"
images = ray.data.read_images(sys.argv[2], size=(pre["size"], pre["size"]), mode=mode, include_paths=True)
images.map_batches(Classifier, concurrency=1, batch_size=8).write_parquet(sys.argv[4])
"""


def seconds(words: list[str], place: Path) -> tuple[float, float]:
    """How long a command takes, and the processor time of it and of its children, s; it must succeed."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{words[:4]}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def linked(images: list[Path], folder: Path, count: int) -> Path:
    """A tree of so many hard links, at most a thousand in a folder."""
    for number in range(count):
        source = images[number % len(images)]
        target = folder / f"{number // 1000:04d}" / f"{number:07d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    return folder


def commands(chosen: argparse.Namespace, place: Path) -> dict[str, Callable[[Path, int], list[str]]]:
    """Kind -> (folder of images, number of the run) -> words."""
    python, artifact, fp32 = sys.executable, str(chosen.artifact), str(chosen.fp32 or chosen.artifact)
    octc = [python, "-m", "octc.cli._app.main", "predict", artifact]
    workers = str(chosen.workers)
    kinds: dict[str, Callable[[Path, int], list[str]]] = {
        "decode": lambda folder, _: [python, str(place / "decode.py"), artifact, str(folder), workers],
        "engine": lambda folder, _: [python, str(place / "engine.py"), artifact, str(folder), workers],
        "archive": lambda folder, number: [
            *octc, str(folder), "--out", str(place / f"out-{number}"), "--workers", workers, "--anyway", "-q",
        ],
        "predict": lambda folder, _: [*octc, str(folder), "--batch", "8", "--format", "csv", "-q"],
        "loop": lambda folder, _: [python, str(place / "loop.py"), fp32, str(folder)],
        "ray": lambda folder, number: [
            python, "-W", "ignore", str(place / "with_ray.py"), artifact, str(folder), workers, str(place / f"ray-{number}"),
        ],
    }  # fmt: skip
    for name, text in (("decode", DECODE), ("engine", ENGINE), ("loop", LOOP), ("with_ray", RAY)):
        (place / f"{name}.py").write_text(text)
    return {kind: words for kind, words in kinds.items() if kind != "ray" or chosen.ray}


def watched(words: list[str], place: Path) -> tuple[float, dict[str, float]]:
    """Peak memory of an octc's own process (not of its children), MB, and what it reports (`--json`)."""
    watcher = (
        "import atexit, runpy, sys\nfrom octc.machine.memory import rss_peak_mib\n"
        "atexit.register(lambda: print(rss_peak_mib(), file=sys.stderr))\nsys.argv = sys.argv[1:]\n"
        "runpy.run_module('octc.cli._app.main', run_name='__main__')\n"
    )
    words = [sys.executable, "-c", watcher, *words[2:], "--json"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return float(done.stderr.split()[-1]), parse_json(done.stdout)["data"]


def _difference(spent: list[tuple[float, float]], start: list[tuple[float, float]], images: int) -> tuple[float, float]:
    """Seconds and processor seconds of an image without those of the start; 0 or less where the machine was too busy."""
    wall, cpu = (statistics.median(one[k] for one in spent) - statistics.median(one[k] for one in start) for k in (0, 1))
    return wall / images, cpu / images


def _ratio(other: float, mine: float) -> float | None:
    return round(other / mine, 3) if other > 0 and mine > 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--fp32", type=Path, help="FP32 ONNX artifact for the plain loop")
    parser.add_argument("--count", type=int, default=1200, help="images of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes, and cores of the bound")
    parser.add_argument("--rows", type=int, help="of the run that measures memory, 100,000; 0: none; of --million 1,000,000")
    parser.add_argument("--million", action="store_true", help="only what so many rows cost octc")
    parser.add_argument("--links", type=float, default=0.1, help="share of the rows of --million that are pictures")
    parser.add_argument("--no-ray", dest="ray", action="store_false")
    chosen = parser.parse_args()
    chosen.artifact = chosen.artifact.resolve()
    chosen.rows = (1_000_000 if chosen.million else 100_000) if chosen.rows is None else chosen.rows
    if chosen.million:
        with tempfile.TemporaryDirectory(prefix="octc-") as name:
            result: dict[str, float | int | None] = million(chosen, Path(name))
    else:
        if chosen.images is None:
            parser.error("a folder of images")
        chosen.images = chosen.images.resolve()
        chosen.fp32 = None if chosen.fp32 is None else chosen.fp32.resolve()
        images = sorted(path for path in chosen.images.rglob("*") if path.suffix.lower() in IMAGES)
        with tempfile.TemporaryDirectory(prefix="octc-", dir=chosen.images.parent) as name:
            result = measure(chosen, images, Path(name))
    sys.stdout.write(json.dumps(result) + "\n")


def small_archive(place: Path, rows: int, links: float) -> Path:
    """A tree of so many rows: pictures and volumes of SIDE px, all of them hard links of a few."""
    sources = place / "sources"
    if not sources.exists():
        sources.mkdir()
        rng = np.random.default_rng(0)
        greys = rng.integers(0, 200, (SOURCES, SIDE, SIDE), np.uint8)
        for number, grey in enumerate(greys):
            Image.fromarray(grey).save(sources / f"{number:02d}.png")
        for number in range(VOLUMES):
            frames = greys[rng.integers(0, SOURCES, FRAMES)]
            WRITERS["vol"][1](
                DrawnEye(frames, "RL"[number % 2], "SYN", datetime(2026, 1, 2), "NORMAL"), sources / f"{number}.vol"
            )
    folder = place / f"rows-{rows}"
    volumes = round(rows * (1 - links)) // FRAMES
    linked(sorted(sources.glob("*.vol")), folder / "volumes", volumes)
    return linked(sorted(sources.glob("*.png")), folder / "pictures", rows - FRAMES * volumes).parent


def million(chosen: argparse.Namespace, place: Path) -> dict[str, float | int | None]:
    """The line of --million."""
    sizes = [chosen.rows // 10, chosen.rows]
    folders = [small_archive(place, size, chosen.links) for size in sizes]
    words = [commands(chosen, place)["archive"](folder, number) for number, folder in enumerate(folders)]
    (small, _), (large, told) = (watched(one, place) for one in words)
    resumed, again = watched(words[1], place)
    return {
        "rows": int(told["scans"]),
        "inputs": int(told["inputs"]),
        "parent_mb": round(large, 1),
        "parent_mb_of_a_tenth": round(small, 1),
        "rss_growth_mb": round(large - small, 1),
        "seconds": round(told["seconds"], 1),
        "rows_s": round(told["scans"] / told["seconds"], 1),
        "bookkeeping": round(told["bookkeeping"], 4),
        "idle": round(told["idle"], 4),
        "resume_s": round(again["seconds"], 1),
        "resume_mb": round(resumed, 1),
        "resume_units": int(again["done"]),
        "workers": chosen.workers,
    }


def measure(chosen: argparse.Namespace, images: list[Path], place: Path) -> dict[str, float | int | None]:
    """The line."""
    many, few = linked(images, place / "many", chosen.count), linked(images, place / "few", LITTLE)
    kinds = commands(chosen, place)
    spent: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    start: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for number in range(chosen.rounds):
        for kind in list(kinds) if number % 2 == 0 else list(kinds)[::-1]:
            start[kind].append(seconds(kinds[kind](few, 2 * number), place))
            spent[kind].append(seconds(kinds[kind](many, 2 * number + 1), place))
    each = {kind: _difference(spent[kind], start[kind], chosen.count - LITTLE) for kind in kinds}
    wall = {kind: pair[0] for kind, pair in each.items()}
    bound, together = max(wall["decode"], wall["engine"]), wall["decode"] + wall["engine"]
    growth = None
    if chosen.rows:
        sizes = [chosen.rows // 10, chosen.rows]
        folders = [linked(images, place / f"rows-{size}", size) for size in sizes]
        one, other = (
            watched(kinds["archive"](folder, 1000 + size), place)[0] for folder, size in zip(folders, sizes, strict=True)
        )
        growth = round(other - one, 1)
    return {
        **{f"{kind}_images_s": round(1 / one, 1) if one > 0 else None for kind, one in wall.items()},
        **{f"{kind}_cpu_ms": round(1000 * cpu, 2) for kind, (_, cpu) in each.items() if kind != "ray"},
        "ratio_vs_bound": _ratio(bound, wall["archive"]),
        "ratio_vs_sum": _ratio(together, wall["archive"]),
        "ratio_vs_predict": _ratio(wall["predict"], wall["archive"]),
        "ratio_vs_loop": _ratio(wall["loop"], wall["archive"]),
        "ratio_vs_ray_default": _ratio(wall.get("ray", 0.0), wall["archive"]),
        "rss_growth_mb": growth,
        "count": chosen.count,
        "rounds": chosen.rounds,
        "workers": chosen.workers,
        "rows": chosen.rows,
    }


if __name__ == "__main__":
    main()
