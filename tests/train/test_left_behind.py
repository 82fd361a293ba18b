"""What a job changes of its process it puts back: threads, random numbers, signals, how processes start. A notebook goes on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.tiny_run import write_patterns

PROGRAM = """
import json, logging, multiprocessing, os, random, signal, sys, threading, warnings
import numpy, torch
import octc
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image, ImageFile

for name in octc.__all__:
    getattr(octc, name)
logging.getLogger("octc").setLevel(logging.ERROR)


def state():
    return {
        "signals": [repr(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "environ": dict(os.environ), "folder": os.getcwd(), "processors": sorted(os.sched_getaffinity(0)),
        "filters": repr(warnings.filters), "pillow": [ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS],
        "torch": [torch.get_num_threads(), str(torch.get_default_dtype()), torch.is_grad_enabled(),
                  torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark],
        "drawn": [torch.random.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), repr(random.getstate())],
        "start": multiprocessing.get_start_method(allow_none=True), "path": list(sys.path),
        "accelerate": [len(one._shared_state) for one in (AcceleratorState, PartialState, GradientState)],
        "threads": sorted(one.name for one in threading.enumerate()),
    }


torch.set_num_threads(1)
ImageFile.LOAD_TRUNCATED_IMAGES = True
before, changed = state(), {}


def step(name, *words, **more):
    global before
    found = more.pop("call")(*words, **more)
    now = state()
    changed[name] = [key for key in now if now[key] != before[key]]
    before = now
    return found


given = {"dataset": "folder", "data": "patterns", "epochs": 1}
step("teacher", "smoke", call=octc.train, role="teacher", **given)
run = step("student", "smoke", call=octc.train, any_teacher=True, **given)
step("another precision", "smoke", call=octc.train, teacher=False, qat=False, precision="bf16", **given)
(folder,) = step("export", run, ["torch"], "fp32", call=octc.export)


def predict(picture):
    model = octc.load(folder)  # one of torch has its threads until it is closed
    model.predict([picture])
    model.close()


step("predict", next(iter(run.path.parents[1].glob("patterns/*/*.png"))), call=predict)
print(json.dumps(changed))
"""


@pytest.mark.slow
def test_a_job_leaves_the_process_as_it_was(tmp_path: Path, warm: tuple[str, ...]) -> None:
    write_patterns(tmp_path / "patterns", patients=8, images=2)
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run([*warm, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    changed = json.loads(done.stdout.splitlines()[-1])
    assert list(changed) == ["teacher", "student", "another precision", "export", "predict"]
    assert not any(changed.values()), changed
