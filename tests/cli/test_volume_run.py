"""A run on volumes through the commands: grey and the eye's answer in the artifact, obeyed; eyes judged by `octc verify`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import octc
from octc.cli._app.main import main
from octc.datasets.split import read_split
from octc.datasets.synthetic import volumes as synthetic
from octc.schemas.common import convert
from octc.schemas.verify import VerifyFile, VerifyResult
from octc.stats.aggregation import Aggregation, aggregate, places_of
from octc.store.artifacts import read_artifact, write_manifest
from octc.store.runs import Run
from octc.volumes import read_volume
from octc.volumes.writing import write_opt
from tests.volume_run import SCANS, pattern_eye, volume_run

Told = Callable[..., tuple[int, Any, str]]
WIDE = ("--margin", "30", "--class-margin", "60", "--plan-discordance", "0.5", "--bootstrap", "1000")


@pytest.fixture(scope="module")
def run() -> Run:
    return volume_run()


@pytest.fixture
def here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run; its data set is found where it was trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    shutil.copytree(run.path, tmp_path / "runs" / run.path.name)
    return tmp_path / "runs" / run.path.name


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    def call(*words: str | Path) -> tuple[int, Any, str]:
        code = main([*map(str, words), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out)["data"], captured.err

    return call


def test_the_artifact_keeps_how_grey_was_made_and_how_an_eye_is_answered(run: Run) -> None:
    for name in ("onnx-fp32", "onnx-int8"):
        details = read_artifact(run.artifacts / name).details
        mappings = {one["name"]: one for one in details["intensity"]["mappings"]}
        assert set(mappings) == {"heyex-log", "linear"}
        assert mappings["heyex-log"]["scale"] == 8.285
        split = read_split(run.split)
        assert sum(one["images"] for one in mappings.values()) == len(split.parts["train"])
        how = Aggregation.from_json(details["aggregation"])
        assert how.chosen_on == "validation set"
        choice = details["aggregation_choice"]
        eyes = {s.file for s in split.parts["val"]}
        assert choice["eyes"] == len(eyes)
        assert choice["patients"] == len({s.patient for s in split.parts["val"]})
        assert len(choice["tried"]) >= 5
        assert how.words in {one["method"] for one in choice["tried"]}


def test_predict_obeys_the_aggregation_of_the_artifact(here: Path, tmp_path: Path) -> None:
    synthetic.write_dicom(pattern_eye("lying", 999, "R"), tmp_path / "eye.dcm")
    artifact = here / "artifacts" / "onnx-fp32"
    ways = (Aggregation("largest", chosen_on="validation set"), Aggregation("mean", chosen_on="validation set", position=0.25),
            Aggregation("learned", chosen_on="validation set", weights=(1.0, 0.5, 0.25)))  # fmt: skip
    for how in ways:
        manifest = read_artifact(artifact)
        write_manifest(artifact, replace(manifest, details={**manifest.details, "aggregation": how.to_json()}))
        with octc.load(artifact) as model:
            *scans, eye = model.predict([tmp_path / "eye.dcm"])
        assert eye.eye is not None
        assert eye.eye.aggregation == how
        kept = [k for k, one in enumerate(scans) if one.label is not None]
        assert eye.eye.usable == len(kept)
        values = np.array([list((scans[k].probabilities or {}).values()) for k in kept])
        expected = aggregate(values, how, places=places_of(SCANS, kept))
        assert np.allclose(list((eye.probabilities or {}).values()), expected)


def test_eyes_stand_beside_b_scans_in_one_verification(here: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    code, data, err = told("verify", here / "artifacts" / "onnx-int8", *WIDE)
    assert code == 0, err
    document = data["artifacts"][0]
    parsed = convert(document, VerifyResult)
    samples = read_split(here / "split.json").parts["test"]
    eyes = sorted({s.file for s in samples})
    claim = document["eyes"]["claim"]
    assert document["set"]["n"] == len(samples)
    assert (document["eyes"]["eyes"], document["eyes"]["left_out"], document["eyes"]["reason"]) == (len(eyes), 0, None)
    assert claim["set"]["n"] == len(eyes)
    assert claim["set"]["patients"] == document["set"]["patients"] == len({s.patient for s in samples})
    for side in ("reference", "candidate"):
        assert claim["accuracy"][side] >= document["accuracy"][side] - 1e-9
        low, high = claim["accuracy"]["wilson"][side]
        assert low <= claim["accuracy"][side] <= high
    assert parsed.eyes is not None
    names = [row["artifact"] for row in data["summary"]]
    assert names == ["student onnx-fp32", "student onnx-fp32, eyes", "onnx-int8", "onnx-int8, eyes"]
    stored = json.loads((here / "artifacts" / "onnx-int8" / "verify.json").read_text())
    convert(stored, VerifyFile)
    assert stored["test"]["eyes"]["claim"]["accuracy"] == claim["accuracy"]
    assert main(["verify", str(here / "artifacts" / "onnx-int8"), *WIDE]) == 0
    text = capsys.readouterr().out
    assert f"n={len(eyes)} eyes" in text
    assert main(["report", here.name, "--out", "page"]) == 0
    page = (here.parent.parent / "page" / "report.md").read_text()
    assert f"{len(eyes)} eyes" in page


def test_an_eye_is_what_predict_answers_for_it(here: Path, told: Told) -> None:
    """The eye-level accuracy of `verify` is that of the records of `predict` on the same files."""
    root = Path(json.loads((here / "run.json").read_text())["data_root"])
    samples = read_split(here / "split.json").parts["test"]
    labels = {str(root / s.file): s.label for s in samples}
    code, data, err = told("predict", here / "artifacts" / "onnx-fp32", *sorted(labels))
    assert code == 0, err
    eyes = [one for one in data["records"] if "eye" in one]
    assert len(eyes) == len(labels)
    usable = [one for one in eyes if one["eye"]["usable"] == one["eye"]["frames"]]
    assert usable
    classes = data["artifact"]["classes"]
    right = [one["label"] == classes[labels[one["file"]]] for one in usable]
    _, verified, _ = told("verify", here / "artifacts" / "onnx-int8", *WIDE)
    accuracy = verified["artifacts"][0]["eyes"]["claim"]["accuracy"]["reference"]
    if len(usable) == len(eyes):
        assert np.isclose(100 * np.mean(right), accuracy)


def test_a_vol_and_its_export_of_8_bits_get_the_same_answer(here: Path, tmp_path: Path) -> None:
    """The .vol, the maker's own kind of export beside it (XML and BMP), and the OPT object that octc writes of it."""
    for name in ("bright", "dark", "lying", "upright"):
        eye = pattern_eye(name, 999, "R")
        folder = tmp_path / name
        folder.mkdir()
        (folder / "eye.vol").write_bytes(synthetic.vol_bytes(eye))
        synthetic.write_xml(eye, folder)
        write_opt(read_volume(folder / "eye.vol"), folder / "eye.dcm")
        with octc.load(here / "artifacts" / "onnx-fp32") as model:
            found = [model.predict([folder / file])[-1] for file in ("eye.vol", "export.xml", "eye.dcm")]
        assert len({one.label for one in found}) == 1
        values = np.array([list((one.probabilities or {}).values()) for one in found])
        assert np.abs(values - values[0]).max() < 0.02
        assert not [code for one in found for code, _ in one.notes if code == "OCT-W805"]


def test_grey_that_the_network_does_not_know_is_said(here: Path, tmp_path: Path) -> None:
    from octc.volumes.writing import Scan, opt_object, save

    artifact = here / "artifacts" / "onnx-fp32"
    manifest = read_artifact(artifact)
    only = [one for one in manifest.details["intensity"]["mappings"] if one["name"] == "heyex-log"]
    write_manifest(artifact, replace(manifest, details={**manifest.details, "intensity": {"mappings": only}}))
    eye = pattern_eye("lying", 998, "L")
    (tmp_path / "eye.fda").write_bytes(synthetic.fda_bytes(eye))
    turned = opt_object(Scan(frames=list(eye.frames), laterality="L", seed="x"))
    turned.PhotometricInterpretation, turned.PresentationLUTShape = "MONOCHROME1", "INVERSE"
    save(turned, tmp_path / "turned.dcm")
    from PIL import Image

    Image.fromarray(eye.frames[0]).save(tmp_path / "one.png")
    with octc.load(artifact) as model:
        found = model.predict([tmp_path / "eye.fda", tmp_path / "turned.dcm", tmp_path / "one.png"])
    told = [[text for code, text in one.notes if code == "OCT-W805"] for one in found]
    assert sum(map(len, told)) == 3
    assert "mapped by linear, the training images by heyex-log" in told[SCANS][0]
    assert "mapped by dicom" in told[2 * SCANS + 1][0]
    assert "this picture" in told[-1][0]


def test_a_raw_volume_takes_the_curve_that_the_artifact_was_trained_with(here: Path, tmp_path: Path) -> None:
    artifact = here / "artifacts" / "onnx-fp32"
    eye = pattern_eye("lying", 997, "L")
    (tmp_path / "eye.vol").write_bytes(synthetic.vol_bytes(eye))
    (tmp_path / "eye.e2e").write_bytes(synthetic.e2e_bytes([eye]))
    manifest = read_artifact(artifact)
    darker = {"name": "heyex-log", "offset": 2.44e-4, "shift": 8.3, "scale": 16.57, "images": 1}
    write_manifest(artifact, replace(manifest, details={**manifest.details, "intensity": {"mappings": [darker]}}))
    from PIL import Image

    volume = read_volume(tmp_path / "eye.vol")
    shown = np.clip((np.log(np.maximum(volume.raw(0)[:, :-1], 0) + 2.44e-4) + 8.3) / 16.57, 0, 1) * 255
    picture = np.zeros((80, 80), np.uint8)
    picture[:, :-1] = (shown + 0.5).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "darker.png")
    with octc.load(artifact) as model:
        of_vol, of_object = model.predict([tmp_path / "eye.vol"])[0], model.predict([volume])[0]
        of_picture = model.predict([tmp_path / "darker.png"])[0]
        of_e2e = model.predict([tmp_path / "eye.e2e"])[0]
    assert of_vol.probabilities == of_object.probabilities
    values = [np.array(list((one.probabilities or {}).values())) for one in (of_vol, of_picture, of_e2e)]
    assert np.allclose(values[0], values[1], atol=5e-3)
    assert np.allclose(values[0], values[2], atol=0.02)


def test_b_scans_of_low_quality_do_not_count(here: Path, tmp_path: Path) -> None:
    """The maker's own number below 15 dB, and B-scans without a picture; half of them and there is no answer for the eye."""
    eye = pattern_eye("lying", 996, "L")
    black = np.array(eye.frames)
    black[1] = 0
    data = bytearray(synthetic.vol_bytes(replace(eye, frames=black)))
    step = 512 + 4 * 80 * 80
    first = 2048 + 64 * 64
    data[first + 56 : first + 60] = np.float32(12.5).tobytes()
    (tmp_path / "eye.vol").write_bytes(data)
    with octc.load(here / "artifacts" / "onnx-fp32") as model:
        eye_answer = model.predict([tmp_path / "eye.vol"])[-1]
        assert eye_answer.eye is not None
        assert (eye_answer.eye.frames, eye_answer.eye.usable) == (5, 3)
        assert eye_answer.label == "lying"
        for index in (2, 3):
            at = first + index * step
            data[at + 56 : at + 60] = np.float32(9.0).tobytes()
        (tmp_path / "poor.vol").write_bytes(data)
        poor = model.predict([tmp_path / "poor.vol"])[-1]
    assert poor.label is None
    assert poor.eye is not None
    assert "low quality" in poor.eye.reasons[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aggregation", {"method": "learned", "top": 3, "chosen_on": "x"}),
        ("intensity", {"mappings": [{"name": "heyex-log", "offset": 0, "shift": 1, "scale": 1}]}),
        ("intensity", {"mappings": 3}),
    ],
)
def test_nonsense_in_the_manifest_is_refused(here: Path, tmp_path: Path, name: str, value: Any) -> None:
    artifact = here / "artifacts" / "onnx-fp32"
    manifest = read_artifact(artifact)
    write_manifest(artifact, replace(manifest, details={**manifest.details, name: value}))
    synthetic.write_dicom(pattern_eye("lying", 995, "L"), tmp_path / "eye.dcm")
    with octc.load(artifact) as model, pytest.raises(octc.OctcError) as caught:
        model.predict([tmp_path / "eye.dcm"])
    assert caught.value.code == "OCT-E502"


def test_a_changed_volume_is_refused_by_verify(here: Path, told: Told, tmp_path: Path) -> None:
    root = Path(json.loads((here / "run.json").read_text())["data_root"])
    copy = tmp_path / "clinic"
    shutil.copytree(root, copy)
    file = next(s.file for s in read_split(here / "split.json").parts["test"] if s.file.endswith(".vol"))
    data = bytearray((copy / file).read_bytes())
    data[-2000:] = np.full(500, 0.5, "<f4").tobytes()
    (copy / file).write_bytes(data)
    code = main(["verify", str(here / "artifacts" / "onnx-int8"), "--data", str(copy), "-q"])
    assert code == 3
    shutil.copy(root / file, copy / file)
    assert main(["verify", str(here / "artifacts" / "onnx-int8"), "--data", str(copy), "-q", *WIDE]) == 0


@pytest.mark.slow
def test_evaluation_and_comparison_take_volumes(here: Path, told: Told) -> None:
    count = len(read_split(here / "split.json").parts["val"])
    code, data, err = told("eval", here.name)
    assert code == 0, err
    assert (here / "eval" / "val-none").is_dir()
    table = next((here / "eval" / "val-none").glob("predictions.*"))
    assert len(table.read_text().splitlines()) == count + 1
    code, data, err = told("compare", here / "artifacts" / "onnx-fp32", here / "artifacts" / "onnx-int8")
    assert code == 0, err
    assert data
