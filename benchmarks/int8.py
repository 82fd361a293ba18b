"""What INT8 buys at full size, in one interleaved run: EfficientNet-B2 and the students for the edge, with random weights.

    python benchmarks/int8.py [--place DIR] [--simplified RUN] [--also NAME=ARTIFACT] [--quick] [--rounds N] [--json]

Compared at batch 1, each with the settings that octc uses: B2 as octc's INT8 artifact for OpenVINO and for LiteRT, NNCF's
default of the same network, B2 in FP32 on both engines, B2 as `octc simplify` leaves it (hard-swish, no squeeze-excite, half of
the channels out) in INT8 on both, the other students in INT8, and ConvNeXtV2-Large in eager torch (FP32, channels last).
Accuracy means nothing here: latency and size do not depend on the weights. `--simplified` takes the network of that run, made
by `octc simplify`, at the size of the benchmark. `--also` times an artifact from elsewhere (of another revision of octc) too.
`--place` keeps what was made, so that a second call only measures; `--quick` is a small rehearsal at 96 px whose ratios mean
nothing, `--tiny` one of test networks at 64 px. `--json` ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from full_size import random_run, tiny_stage

import octc
from octc.bench.timing.load_generator import block
from octc.bench.timing.queries import Parts, Picture, device_query, end_to_end_query, tensors
from octc.compress.placement import ENGINES, XNNPACK
from octc.core.files import publishing
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom, write_phantoms
from octc.export.formats import choose_opset
from octc.export.own_network import source_of
from octc.export.pipeline import write_files
from octc.export.ptq.engines import nncf_default
from octc.export.source import calibration_set, quantise, read_source
from octc.export.targets import Job, Workshop
from octc.imaging.preprocess import Preprocess
from octc.machine.cpu import read_text
from octc.machine.host import read_machine, versions
from octc.runtimes.base import Runtime
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import Artifact, read_artifact, write_manifest
from octc.store.runs import Run, scan_runs
from octc.train.evaluation.assess import network_of
from octc.train.networks.models import build_model
from octc.train.recipes.config import Stage
from octc.train.recipes.registry import RECIPES

B2, TEACHER, SIMPLIFIED = "efficientnet_b2", "convnextv2_large", "efficientnet_b2, simplified"
ALSO = "also"  # heads the rows of artifacts from elsewhere
# name in the table -> recipe that it is the student of
STUDENTS = {
    B2: "edge-b2", "efficientnet_b2, hard-swish": "edge-b2-hardswish", "tf_efficientnet_lite0": "edge",
    "tf_efficientnet_lite2": "edge-lite2", "mobilenetv4_conv_medium": "edge-mnv4-medium",
    "mobilenetv4_conv_small": "edge-mnv4-small",
}  # fmt: skip
QUICK = (B2, "mobilenetv4_conv_small")
FLOAT = (("onnx", "fp32"), ("openvino", "fp32"))
TINY = 64  # px
PACKAGES = ("torch", "timm", "onnxruntime", "openvino", "ai-edge-litert", "nncf")


@dataclass
class Item:
    """Something that is timed: a callable of the query's number, its samples in ms, its file's size and INT8 convolutions."""

    query: Callable[[int], Any]
    mb: float | None = None
    convolutions: dict[str, int] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


def stage_of(name: str, size: int) -> Stage:
    """The student of a recipe, at the benchmark's size, from random weights; at the size of --tiny a test network for it."""
    stage = RECIPES[STUDENTS[name]]().student
    if size == TINY:
        return tiny_stage(stage)
    return replace(stage, model=stage.model.split(".")[0], weights="none", size=size)


def make_student(place: Path, name: str, size: int, floats: bool) -> dict[str, Path]:
    """Artifacts of one student: INT8 for ONNX and OpenVINO; FP32 for both and INT8 for LiteRT where asked (kept, and made only
    where absent)."""
    folder = place / "artifacts" / name.replace(", ", "-")
    wanted = [("onnx", "int8"), ("openvino", "int8"), *(FLOAT if floats else ())]
    found = {f"{target}-{precision}": folder / f"{target}-{precision}" for target, precision in wanted}
    if floats:
        found |= {name: folder / name for name in ("openvino-nncf", "litert-int8")}
    if all(path.is_dir() for path in found.values()):
        return found
    say(f"making {name} at {size} px")
    run = _run_of(place, "student", stage_of(name, size))
    source = read_source(run, place / "phantoms")
    calibration = {"quantisation": {"calibration": 16, "observers": ("max",)}}  # ranges do not change a time
    source = replace(source, checkpoint=replace(source.checkpoint, recipe=calibration))
    work = place / "work"
    work.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        shop = Workshop(source, Path(scratch), quantise(source))
        for target, precision in wanted:
            with publishing(found[f"{target}-{precision}"], force=True) as new:
                write_files(shop, Job(target, precision, choose_opset(target, None)), new)
        if floats:
            with publishing(found["openvino-nncf"], force=True) as new:
                _, artifact = write_files(shop, Job("openvino", "fp32", choose_opset("openvino", None)), new)
                float_file = Path(shop.float_onnx(choose_opset("openvino", None)).main_file)
                nncf_default(float_file, new / artifact.main_file, calibration_set(source)[1])
                write_manifest(new, replace(artifact, precision="int8", name="openvino-int8-nncf-default"))
            shop = Workshop(source, Path(scratch), quantise(source, placement=XNNPACK))
            with publishing(found["litert-int8"], force=True) as new:
                write_files(shop, Job("litert", "int8", choose_opset("litert", None)), new)
    return found


def make_simplified(place: Path, size: int, trained: Path | None) -> dict[str, Path]:
    """INT8 artifacts of the simplified B2, for OpenVINO and LiteRT: of the run `trained`, or made here from random weights."""
    home = place / "artifacts" / ("simplified" if trained is None else f"simplified-{trained.name}")
    found = {"openvino-int8": home / "openvino-int8", "litert-int8": home / "litert-int8"}
    if not all(path.is_dir() for path in found.values()):
        say(f"making {SIMPLIFIED} at {size} px")
        images, preprocess = [draw_phantom(CLASSES[n % len(CLASSES)], n, n) for n in range(16)], octc.Preprocess(size=size)
        network = _simplified(size, images) if trained is None else network_of(Run(trained))[0]
        for target, placement in (("openvino", ENGINES), ("litert", XNNPACK)):
            options = octc.QuantizeOptions(rounding=False, observers=("max",), placement=placement)
            own = octc.quantize(network, images, preprocess, name=SIMPLIFIED, options=options)
            with tempfile.TemporaryDirectory() as scratch, publishing(found[f"{target}-int8"], force=True) as new:
                shop = Workshop(source_of(own, Path(scratch)), Path(scratch), own.quantised)
                write_files(shop, Job(target, "int8", choose_opset(target, None)), new)
    return found


def _simplified(size: int, images: list[Any]) -> Any:
    """B2 from random weights, made simpler; at the size of --tiny half of a test network's channels."""
    wanted: dict[str, Any] = {} if size == TINY else {"activation": "hard-swish", "no_se": True}
    network = build_model(stage_of(B2, size).model, 4).eval()
    return octc.simplify(network, images, octc.Preprocess(size=size), octc.Simplification(**wanted, prune=0.5)).module


def _run_of(place: Path, kind: str, stage: Stage) -> Run:
    """A run of that network and activation; one that is there is taken."""
    key = f"{stage.model} {stage.model_kwargs.get('act_layer', '')} {stage.size}".strip()
    for run in scan_runs(place / "runs"):
        if run.read().get("benchmark") == key and run.read().get("status") == "done":
            return run
    run = random_run(place, kind, stage, None)
    run.update(benchmark=key)
    return run


def make_teacher(place: Path, model: str, size: int) -> Path:
    """The teacher in FP32 as an artifact for eager torch."""
    from safetensors.torch import save_file

    folder = place / "artifacts" / model
    if not folder.is_dir():
        say(f"making {model}")
        with publishing(folder, force=False) as new:
            network = build_model(model, 4)
            save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, new / "model.safetensors")
            classes = ("CNV", "DME", "DRUSEN", "NORMAL")
            artifact = Artifact(
                name="torch-fp32", role="teacher", model=model, precision="fp32", target="torch", classes=classes,
                preprocess=Preprocess(size), lineage={}, details={"model_kwargs": {}}, main_file="model.safetensors",
            )  # fmt: skip
            write_manifest(new, artifact)
    return folder


def drawn_pictures() -> list[Picture]:
    """Drawn B-scans as JPEG, 750 x 496 grey: what a scanner's export looks like."""
    made = []
    for number in range(8):
        stream = io.BytesIO()
        draw_phantom(CLASSES[number % len(CLASSES)], number, number).resize((750, 496)).save(stream, "JPEG", quality=90)
        made.append(Picture(stream.getvalue(), f"drawn-{number}.jpeg"))
    return made


def items_of(folders: dict[str, dict[str, Path]], teacher: Path, pictures: list[Picture], threads: int) -> dict[str, Item]:
    """Every row, opened. The teacher shares torch's threads with nobody: the other engines have their own."""
    items: dict[str, Item] = {}
    for name, found in folders.items():
        for kind, folder in found.items():
            artifact = read_artifact(folder)
            runtime = open_runtime(folder, artifact, threads=threads, batch=1)
            items[f"{name} {kind}"] = _item(runtime, artifact, folder, pictures)
            if name == B2 and kind == "openvino-int8":
                query = end_to_end_query(runtime, pictures, artifact.preprocess, 1, Parts())
                items[f"{name} {kind}, JPEG to label"] = Item(query)
    artifact = read_artifact(teacher)
    items[f"{artifact.model} torch-fp32"] = _item(open_runtime(teacher, artifact, threads=threads), artifact, teacher, pictures)
    return items


def _item(runtime: Runtime, artifact: Artifact, folder: Path, pictures: list[Picture]) -> Item:
    size = sum(path.stat().st_size for path in folder.glob("model.*")) / 1e6
    inputs = tensors(pictures, artifact.preprocess, 1)
    return Item(device_query(runtime, inputs), size, runtime.precision_found(), facts=runtime.facts)


def measure(items: dict[str, Item], rounds: int, seconds: float) -> dict[str, Any]:
    """Interleaved rounds: each visits every item for `seconds` after one untimed call. Returns the machine's own load."""
    for item in items.values():
        item.query(0)
    before, own, begin = busy_seconds(), time.process_time(), time.monotonic()
    for number in range(rounds):
        for name in list(items)[:: 1 if number % 2 == 0 else -1]:
            item = items[name]
            item.query(0)
            found = block(item.query, seconds=seconds, calls=3, slow_calls=1, slow_s=seconds)
            item.samples += [ns / 1e6 for ns in found]
        say(f"round {number + 1} of {rounds}: {time.monotonic() - begin:.0f} s")
    wall = time.monotonic() - begin
    foreign = busy_seconds() - before - (time.process_time() - own)
    return {"wall_s": wall, "foreign_cores": max(0.0, foreign) / wall}


def busy_seconds() -> float:
    """Processor time that all programs of this machine took since it was started (0 where it cannot be read)."""
    fields = read_text(Path("/proc/stat")).split("\n", 1)[0].split()
    spent = [int(value) for value in fields[1:9]]
    return (sum(spent) - spent[3] - spent[4] - spent[7]) / os.sysconf("SC_CLK_TCK") if len(spent) == 8 else 0.0


def ratios(items: dict[str, Item], folders: dict[str, dict[str, Path]], teacher: str) -> dict[str, Any]:
    """The numbers that are asked for, from medians of this run."""

    def fastest_of(names: set[str]) -> str:
        rows = [f"{name} {kind}" for name in names for kind in folders[name] if kind.endswith("-int8")]
        return min(rows, key=lambda row: items[row].median)

    own = items[f"{B2} openvino-int8"]
    best = min(items[f"{B2} {kind}"].median for kind in ("onnx-fp32", "openvino-fp32"))
    edge, simplified = fastest_of(set(folders) & set(STUDENTS) - {B2}), fastest_of({SIMPLIFIED})
    least = items[simplified].median
    total = items[f"{B2} openvino-int8, JPEG to label"].median
    return {
        "ratio_vs_nncf_default": items[f"{B2} openvino-nncf"].median / own.median, "ratio_vs_fp32": best / own.median,
        "ratio_litert_vs_openvino": items[f"{B2} litert-int8"].median / own.median,
        "ratio_vs_teacher_eager": items[teacher].median / own.median, "ratio_edge_student": own.median / items[edge].median,
        "edge_student": edge, "end_to_end_overhead": total / own.median - 1,
        "int8_convolutions": own.convolutions.get("int8", 0), "convolutions": sum(own.convolutions.values()),
        "mb_openvino_int8": own.mb, "mb_onnx_int8": items[f"{B2} onnx-int8"].mb,
        "simplified": simplified, "ratio_simplified_vs_openvino": own.median / least, "ratio_simplified_vs_fp32": best / least,
        "ratio_simplified_vs_teacher_eager": items[teacher].median / least,
        "ratio_simplified_vs_also": {name: items[f"{ALSO} {name}"].median / least for name in folders[ALSO]},
    }  # fmt: skip


def table(items: dict[str, Item], reference: float) -> str:
    lines = ["| network, file | ms (median) | p10 | times octc's INT8 B2 | MB | convolutions |", "| --- " * 6 + "|"]
    for name, item in items.items():
        tenth = sorted(item.samples)[len(item.samples) // 10]
        convs = ", ".join(f"{count} {kind}" for kind, count in sorted(item.convolutions.items()))
        size = "" if item.mb is None else f"{item.mb:.2f}"
        lines.append(f"| {name} | {item.median:.2f} | {tenth:.2f} | {item.median / reference:.2f} | {size} | {convs} |")
    return "\n".join(lines)


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, help="where files are made and kept; a temporary folder without it")
    parser.add_argument("--quick", action="store_true", help="small networks at 96 px: a rehearsal")
    parser.add_argument("--tiny", action="store_true", help="test networks at 64 px: to see that it works")
    parser.add_argument("--few", action="store_true", help="only the two students that the ratios need")
    parser.add_argument(
        "--simplified", type=Path, metavar="RUN", help="folder of a run of octc simplify, instead of random weights"
    )
    parser.add_argument("--also", action="append", default=[], metavar="NAME=ARTIFACT", help="time this artifact too")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, help="of every engine; the usable cores without it")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = chosen.place or Path(scratch)
        small = chosen.quick or chosen.tiny
        size, names = (
            (TINY if chosen.tiny else 96 if chosen.quick else 384),
            (QUICK if small or chosen.few else tuple(STUDENTS)),
        )
        teacher_model = "test_resnet" if chosen.tiny else "convnextv2_atto" if chosen.quick else TEACHER
        place = place / str(size)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "phantoms").is_dir():
            write_phantoms(place / "phantoms", 24, 12, 0)
        folders = {name: make_student(place, name, size, name == B2) for name in names}
        folders[SIMPLIFIED] = make_simplified(place, size, chosen.simplified)
        folders[ALSO] = {name: Path(folder) for name, _, folder in (words.partition("=") for words in chosen.also)}
        teacher = make_teacher(place, teacher_model, size)
        machine = read_machine(gpus=False)
        items = items_of(folders, teacher, drawn_pictures(), chosen.threads or machine.cpus.physical)
        load = measure(items, 3 if small else chosen.rounds, 0.1 if small else 0.4)
    found = ratios(items, folders, f"{teacher_model} torch-fp32")
    own = items[f"{B2} openvino-int8"]
    conditions = {
        "size": size, "quick": chosen.quick, "cpu": machine.cpu_model, "isa": list(machine.isa),
        "cores": machine.cpus.physical, "quota": machine.cpus.quota, "load_before": machine.load, **load,
        "threads": own.facts.get("threads"), "openvino": own.facts, "versions": versions(PACKAGES),
    }  # fmt: skip
    print(table(items, own.median))  # noqa: T201
    for key, value in found.items():
        say(f"{key}: {value:.3f}" if isinstance(value, float) else f"{key}: {value}")
    say(f"conditions: {json.dumps(conditions, default=str)}")
    if chosen.json:
        medians = {name: item.median for name, item in items.items()}
        print(json.dumps({**found, "medians_ms": medians, "conditions": conditions}, default=str))  # noqa: T201


if __name__ == "__main__":
    main()
