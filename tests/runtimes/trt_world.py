"""A machine that seems to have TensorRT of some version: PYTHONPATH with the recording stand-in, and a libcudart of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from octc.runtimes.tensorrt.process import WORKER
from octc.schemas.tensorrt_plan import BuildPlan, PlannedFiles, make_plan

HERE = Path(__file__).parent
NAMES = HERE / "tensorrt_names.json"
VERSIONS = tuple(json.loads(NAMES.read_text())["versions"])
SHAPE = [1, 4, 4]


@dataclass
class World:
    """folder holds plan, ONNX and results; settings go to the stand-in."""

    folder: Path
    version: str
    python: str = sys.executable
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        site = self.folder / "site"
        site.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / "fake_tensorrt.py", site / f"{self.module}.py")

    @property
    def module(self) -> str:
        return "tensorrt_rtx" if self.version.startswith("rtx") else "tensorrt"

    def environ(self) -> dict[str, str]:
        facts = {"version": self.version, "names": str(NAMES), "log": str(self.folder / "calls.json"), **self.settings}
        return {
            **os.environ, "PYTHONPATH": str(self.folder / "site"), "FAKE_TRT": json.dumps(facts),
            "LD_LIBRARY_PATH": str(self.folder / "lib"),
        }  # fmt: skip

    def plan(self, precision: str = "int8", typing: str = "weak", **more: Any) -> BuildPlan:
        """A plan for an ONNX file that the stand-in does not read."""
        names = ("model.onnx", "model.int8fp16.onnx", "model.fp16.onnx")
        for name in names:
            (self.folder / name).write_bytes(name.encode())
        from octc.core.files import sha256_file

        sums = {name: sha256_file(self.folder / name) for name in names}
        macs = {"conv_1": 100, "conv_2": 300}
        made = PlannedFiles(sums, SHAPE, macs, promised=("conv_1", "conv_2"), **more)
        return make_plan(precision, typing, made, self.module)

    def work(self, job: str, plan: BuildPlan | dict[str, Any]) -> tuple[int, dict[str, Any], str]:
        """Run the worker: exit code, its result, its log."""
        value = plan.to_json() if isinstance(plan, BuildPlan) else plan
        (self.folder / "plan.json").write_text(json.dumps(value))
        for old in self.folder.glob("*.result.json"):
            old.unlink()
        command = [self.python, str(WORKER), job, str(self.folder / "plan.json")]
        done = subprocess.run(command, env=self.environ(), capture_output=True, text=True, timeout=120, check=False)
        results = [json.loads(path.read_text()) for path in self.folder.glob("*.result.json")]
        assert len(results) <= 1
        return done.returncode, results[0] if results else {}, done.stderr

    def calls(self) -> list[list[Any]]:
        return json.loads((self.folder / "calls.json").read_text())

    def make_cudart(self) -> None:
        (self.folder / "lib").mkdir(exist_ok=True)
        library = self.folder / "lib" / "libcudart.so.13"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(HERE / "fake_cudart.c")], check=True, timeout=60)

    def write_golden(self, wrong: float = 0.0) -> dict[str, Any]:
        """Three images with the logits that the stand-in's engine gives."""
        inputs = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
        logits = inputs.reshape(3, -1)[:, :4].astype(np.float32) * np.float32(0.5) + np.float32(wrong)
        np.savez(self.folder / "golden.npz", inputs=inputs, logits=logits)
        return {"file": "golden.npz", "delta_over_s": 0.05, "agreement": 0.999}
