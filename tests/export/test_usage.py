"""USE.md of an artifact: its lines are run without octc, and give octc's own probabilities."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.cli._app.main import main
from octc.export.usage import usage_text
from octc.store.artifacts import USAGE as FILE
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from tests.tiny_artifacts import copied, folder_of, resign, shared_run

ORIENTATION = 274  # tag of EXIF and TIFF
ALLOWED = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch", "litert": "ai_edge_litert"}
# the script runs where octc, and every engine but its own, cannot be imported
RUN = "import sys; sys.modules.update(dict.fromkeys({blocked!r})); sys.argv = ['use', {image!r}]; exec(open({script!r}).read())"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-int8", "openvino-fp16", "openvino-int8", "torch-fp32", "litert-int8"])
def test_its_code_gives_the_probabilities_of_octc(
    run: Run, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(run, name)
    artifact = read_artifact(folder)
    assert FILE in artifact.files  # a changed one is noticed
    noise = np.random.default_rng(0).integers(0, 255, (96, 160), dtype=np.uint8)  # of another size: the resize counts
    Image.fromarray(noise).save(tmp_path / "seen.png")
    same_answer(folder, tmp_path / "seen.png", capsys)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG"])
def test_a_picture_on_its_side_is_turned_in_its_code_too(
    kind: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    slope = np.linspace(0, 255, 96 * 160).reshape(96, 160).astype(np.uint8)
    Image.fromarray(slope).save(tmp_path / f"seen.{kind.lower()}", kind, exif=exif)
    Image.fromarray(slope).save(tmp_path / "upright.png")
    turned = same_answer(run.artifacts / "onnx-int8", tmp_path / f"seen.{kind.lower()}", capsys)
    assert turned != pytest.approx(same_answer(run.artifacts / "onnx-int8", tmp_path / "upright.png", capsys), abs=1e-3)


RANGES = {
    "12 bits": ((0.0, 4095.0), (96, 160), np.uint16, 4300),
    "12 bits, a picture of 8": ((0.0, 4095.0), (96, 160), np.uint8, 255),
    "a part of 8 bits": ((20.0, 200.0), (96, 160), np.uint8, 255),
    "a part of 8 bits, colour": ((20.0, 200.0), (96, 160, 3), np.uint8, 255),
}


@pytest.mark.parametrize("case", RANGES)
def test_a_stated_value_range_is_in_its_code_too(
    case: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (low, high), shape, kind, top = RANGES[case]
    folder = copied(run, "onnx-int8", tmp_path)
    resign(folder, lambda value: value["preprocess"].update(value_range=[low, high]))
    artifact = read_artifact(folder)
    assert artifact.preprocess.value_range == (low, high)
    (folder / FILE).write_text(usage_text(folder, artifact))
    resign(folder)
    pixels = np.random.default_rng(0).integers(0, top, shape).astype(kind)
    Image.fromarray(pixels).save(tmp_path / "seen.png")
    ranged = same_answer(folder, tmp_path / "seen.png", capsys)
    plain = same_answer(run.artifacts / "onnx-int8", tmp_path / "seen.png", capsys)
    assert (ranged == pytest.approx(plain, abs=1e-6)) == (case == "12 bits, a picture of 8")
    assert f"{low:g} becomes 0 and {high:g} becomes 255" in (folder / FILE).read_text()
    equalised = replace(artifact, preprocess=replace(artifact.preprocess, clahe=2.0))
    assert "# CLAHE first, see above" in usage_text(folder, equalised)


def same_answer(folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """The probabilities of `octc predict`, once the code of USE.md has given the same ones."""
    artifact = read_artifact(folder)
    capsys.readouterr()
    assert main(["predict", str(folder), str(picture), "--json"]) == 0
    expected: dict[str, float] = json.loads(capsys.readouterr().out)["data"]["records"][0]["probabilities"]
    (code,) = re.findall(r"```python\n(.*?)```", (folder / FILE).read_text(), re.S)
    script = picture.with_suffix(".py")
    script.write_text(code)
    own = ALLOWED[artifact.target]
    blocked = ["octc", *(module for module in ALLOWED.values() if module != own)]
    words = RUN.format(blocked=blocked, image=str(picture), script=str(script))
    done = subprocess.run([sys.executable, "-c", words], cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found = {line.rpartition(": ")[0]: float(line.rpartition(": ")[2]) for line in done.stdout.splitlines()}
    assert found == pytest.approx(expected, abs=1e-3)
    assert tuple(found) == artifact.classes
    return expected


def test_it_states_what_the_file_itself_takes(run: Run) -> None:
    text = (run.artifacts / "onnx-int8" / FILE).read_text()
    assert re.search(r"uint8 \[N, 1, \d+, \d+\]", text)
    assert "antialiased bilinear" in text
    assert "not normalised" in text


def test_several_labels_a_picture_have_thresholds_and_colour_has_three_channels(run: Run) -> None:
    folder = run.artifacts / "onnx-fp32"
    artifact = read_artifact(folder)
    thresholds = [0.25, 0.5, 0.75, 0.125][: len(artifact.classes)]
    several = replace(
        artifact, task="multilabel", details={**artifact.details, "thresholds": thresholds},
        preprocess=replace(artifact.preprocess, channels=3, clahe=2.0),
    )  # fmt: skip
    text = usage_text(folder, several)
    assert f"{artifact.classes[0]} 0.25" in text
    assert "np.exp(-logits)" in text
    assert 'convert("RGB")' in text
    assert "CLAHE, clip 2, 8 x 8 tiles" in text
