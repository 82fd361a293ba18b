"""The full-size pair with random weights: ConvNeXtV2-Large and EfficientNet-B2 at 384 px, exported, checked and timed.

    python benchmarks/full_size.py --place DIR [--quick] [--tiny]

Accuracy means nothing here; agreement of each file with its torch network, size and latency do. Uses drawn images.
--tiny: timm's test networks at 64 px and a bench of seconds, to see that it works.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from octc.datasets.registry import scan_dataset
from octc.datasets.split import make_split
from octc.datasets.synthetic.bscans import write_phantoms
from octc.store.runs import Run, create_run
from octc.train.loop.checkpoint import Checkpoint, write_checkpoint
from octc.train.networks.models import build_model, parameter_count
from octc.train.recipes.config import Stage
from octc.train.recipes.kd_oct import kd_oct
from octc.train.stages import preprocess_of

# a bench of seconds, whose rows are INVALID: it shows that the commands work
TINY_BENCH = ("--quick", "--max-duration", "1s", "--duration", "0.1s", "--min-queries", "4")


def tiny_stage(stage: Stage) -> Stage:
    """A network that is made in no time, in the place of a stage's own."""
    return replace(stage, model="test_resnet", model_kwargs={}, weights="none", size=64)


def random_run(place: Path, kind: str, stage: Stage, teacher: Run | None) -> Run:
    """A finished run whose network has random weights of a fixed seed (the classifier of the drawn data set's classes)."""
    import torch

    torch.manual_seed(0)
    root = place / "phantoms"
    samples = scan_dataset("phantom", root)
    split = make_split(samples, "phantom", 0)
    run = create_run(
        place / "runs", kind, "phantom", data_root=str(root.resolve()), data_digest=samples.digest, split_digest=split.digest,
        recipe={"name": "random"}, seed=0, teacher_run=None if teacher is None else teacher.id,
        begin=lambda run: split.write(run.split),
    )  # fmt: skip
    model = build_model(stage.model, len(split.classes))
    for weight in (m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        if not weight.any():  # timm starts a ResNet's branches at nothing, and an exporter would drop them
            torch.nn.init.constant_(weight, 0.25)
    sys.stderr.write(f"{stage.model}: {parameter_count(model) / 1e6:.2f} million parameters\n")
    checkpoint = Checkpoint(
        role=kind, model=stage.model, model_kwargs={}, classes=split.classes, preprocess=preprocess_of(stage),
        recipe={"name": "random", "quantisation": {**asdict(kd_oct().quantisation), "calibration": 32}}, dataset="phantom",
        split_digest=split.digest, data_digest=samples.digest, weights={"source": "random", "licence": "none"},
    )  # fmt: skip
    write_checkpoint(run.path / "train", model.state_dict(), checkpoint)
    run.update(status="done")
    return run


def octc(place: Path, *words: str) -> None:
    """One command, shown and checked."""
    sys.stderr.write(f"$ octc {' '.join(words)}\n")
    done = subprocess.run([sys.executable, "-m", "octc.cli._app.main", *words], cwd=place, check=False)
    if done.returncode not in (0, 1):  # 1: a row is INVALID on a busy machine, and says so
        sys.exit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True, help="an empty folder for runs and drawn images")
    parser.add_argument("--quick", action="store_true", help="the quick profile of octc bench")
    parser.add_argument("--tiny", action="store_true", help="test networks at 64 px, to see that it works")
    chosen = parser.parse_args()
    chosen.place.mkdir(parents=True, exist_ok=True)
    write_phantoms(chosen.place / "phantoms", 24, 12, 0)
    recipe = kd_oct()
    if chosen.tiny:
        recipe = replace(recipe, teacher=tiny_stage(recipe.teacher), student=tiny_stage(recipe.student))
    teacher = random_run(chosen.place, "teacher", recipe.teacher, None)
    student = random_run(chosen.place, "student", recipe.student, teacher)
    for target in ("onnx", "torch"):
        octc(chosen.place, "export", teacher.id, "--target", target, "--fp32")
    octc(chosen.place, "export", student.id, "--target", "onnx", "--fp32")
    octc(chosen.place, "export", student.id, "--target", "openvino", "--fp32")
    octc(chosen.place, "export", student.id, "--target", "openvino", "--int8", "--no-gate")
    more = ("--quick", "--max-duration", "60s") if chosen.quick else ("--max-duration", "240s")
    if chosen.tiny:
        more = TINY_BENCH
    octc(chosen.place, "bench", student.id, "--batch", "1", *more)  # the teacher takes seconds a query


if __name__ == "__main__":
    main()
