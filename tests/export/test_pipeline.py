from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.compress.placement import ENGINES
from octc.core.errors import OctcError
from octc.export.formats import FORMATS, choose_opset, pairs
from octc.export.onnx.float import read_onnx
from octc.export.pipeline import Device, export_artifact, fallback_steps
from octc.export.source import Select, quantise, read_select, read_source, require_disjoint
from octc.export.targets import Job, Workshop
from octc.imaging.preprocess import Float32
from octc.runtimes.base import broken
from octc.runtimes.layers import layer_gaps, suspects
from octc.store.artifacts import Artifact, read_artifact, read_golden
from octc.store.runs import Run
from octc.train.loop.checkpoint import read_checkpoint, write_checkpoint
from tests.export.engines import DEVICE, Engine, open_engine
from tests.tiny_artifacts import shared_run


@pytest.fixture(scope="module")
def shop(trained: Run, patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    source = read_source(trained, patterns)
    return Workshop(source, tmp_path_factory.mktemp("shop"), quantise(source))


@pytest.fixture(scope="module")
def select(shop: Workshop) -> Select:
    return read_select(shop.source)


def into(shop: Workshop, folder: Path) -> Workshop:
    """The same workshop (with its ONNX files) for a run of its own."""
    return replace(shop, source=replace(shop.source, artifacts=Run(folder).artifacts, home=folder))


def set_for(target: str, precision: str, shop: Workshop) -> Workshop:
    """The workshop with the quantisers where the target wants them, calibrated for it; the shop itself where its own serve."""
    placement = FORMATS[target].placement
    if placement == ENGINES or precision != "int8":
        return shop
    (shop.folder / placement).mkdir(exist_ok=True)
    return Workshop(shop.source, shop.folder / placement, quantise(shop.source, placement=placement))


def job(target: str, precision: str) -> Job:
    return Job(target, precision, None if target == "torch" else choose_opset(target, None))


def spoiled(change: Callable[[Float32], Float32]) -> Device:
    """The real engines with their logits changed."""

    def opened(folder: Path, artifact: Artifact) -> Engine:
        engine = open_engine(folder, artifact)
        return Engine(lambda batch: change(engine(batch)))

    return Device(opened, lambda *_: {"ok": True, "delta_over_s": 0.0})


@pytest.mark.slow
def test_every_artifact_is_complete_and_agrees_with_its_reference(shop: Workshop, select: Select, run: Run) -> None:
    for target, precision in pairs():
        own = set_for(target, precision, shop)
        published = export_artifact(into(own, run.path), job(target, precision), DEVICE, select=select)
        artifact = read_artifact(published.folder)
        assert published.folder == run.artifacts / f"{target}-{precision}"
        assert artifact.details["golden"]["ok"]
        assert artifact.classes == ("bright", "dark", "lying", "upright")
        assert {"run", "recipe", "dataset", "split_digest", "checkpoint", "weights", "versions"} <= set(artifact.lineage)
        golden = read_golden(published.folder)
        assert len(golden.inputs) >= 8
        assert set(golden.logits.argmax(1)) == {0, 1, 2, 3}
        assert golden.source_input.shape == golden.inputs[:1].shape
        assert (published.gate is not None) == (precision == "int8")
        if target != "torch":
            assert artifact.details["batches_run"] == [1, 2, 5]
    assert (run.artifacts / "tensorrt-int8" / "BUILD.txt").read_text().count("trtexec --onnx=") == 6
    sizes = {p.parent.name: p.stat().st_size for p in run.artifacts.glob("onnx-*/model.onnx")}
    assert sizes["onnx-int8"] < 0.4 * sizes["onnx-fp32"]
    assert sizes["onnx-fp16"] < 0.6 * sizes["onnx-fp32"]


def test_encodings_follow_the_target(shop: Workshop, select: Select, run: Run) -> None:
    export_artifact(into(shop, run.path), job("tensorrt", "int8"), DEVICE, select=select)
    homes = {"onnx": shared_run(), "openvino": shared_run(), "tensorrt": run}  # the first two are exported once for all tests
    found = {}
    for target, home in homes.items():
        details = read_artifact(home.artifacts / f"{target}-int8").details
        found[target] = (details["encoding"], details["opset"], details["int8_convolutions"])
    assert found == {"onnx": ("uint8", 20, 15), "openvino": ("mixed", 20, 15), "tensorrt": ("int8", 19, 15)}
    weights = read_onnx(run.artifacts / "tensorrt-int8" / "model.onnx").graph.initializer
    assert sum(tensor.data_type == 3 and len(tensor.dims) == 4 for tensor in weights) == 15
    assert not [t.name for t in weights if t.data_type == 1 and len(t.dims) == 4 and "conv" in t.name]


def test_manifest_has_no_path_of_this_machine(shop: Workshop, run: Run) -> None:
    folder = export_artifact(into(shop, run.path), job("openvino", "fp16"), DEVICE).folder
    for path in folder.iterdir():
        assert str(run.path).encode() not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()


@pytest.mark.slow
def test_x08_int8_below_the_margin_is_rejected(shop: Workshop, select: Select, run: Run) -> None:
    def worse(logits: Float32) -> Float32:
        changed = logits.copy()
        changed[0] = changed[0, ::-1]  # one image in each batch of eight
        return changed

    with pytest.raises(OctcError) as caught:
        export_artifact(into(shop, run.path), job("openvino", "int8"), spoiled(worse), select=select)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E405", 1)
    assert not (run.artifacts / "openvino-int8").exists()
    kept = read_artifact(run.path / "rejected" / "openvino-int8")
    assert [step["accepted"] for step in kept.details["ladder"]] == [False] * 3
    assert kept.details["float_layers"]


def test_x08_fallback_is_climbed_until_a_step_passes(shop: Workshop, select: Select, run: Run) -> None:
    opened: list[int] = []

    def first_is_bad(folder: Path, artifact: Artifact) -> Engine:
        engine = open_engine(folder, artifact)
        opened.append(1)
        return Engine(lambda batch: np.zeros_like(engine(batch))) if len(opened) == 1 else engine

    device = Device(first_is_bad, lambda *_: {"ok": True, "delta_over_s": 0.0})
    published = export_artifact(into(shop, run.path), job("openvino", "int8"), device, select=select)
    assert [step["accepted"] for step in published.steps] == [False, True]
    kept = published.artifact.details["float_layers"]
    assert 1 <= len(kept) <= 3
    assert published.artifact.details["int8_convolutions"] == 15 - len(kept)
    assert read_artifact(published.folder).details["ladder"] == list(published.steps)


def test_logits_that_are_not_finite_are_rejected(shop: Workshop, select: Select, run: Run) -> None:
    with pytest.raises(OctcError, match="not_finite"):
        export_artifact(into(shop, run.path), job("onnx", "int8"), spoiled(lambda z: z * np.float32("nan")), select=select)


def test_golden_images_that_differ_are_not_published(shop: Workshop, run: Run) -> None:
    device = replace(DEVICE, open=spoiled(lambda logits: logits + np.float32(0.5)).open)
    with pytest.raises(OctcError) as caught:
        export_artifact(into(shop, run.path), job("onnx", "fp32"), device)
    assert caught.value.code == "OCT-E506"
    assert not (run.artifacts / "onnx-fp32").exists()


def test_an_engine_that_refuses_what_was_just_made_is_told_as_such(shop: Workshop, run: Run) -> None:
    """Making it again, which mends a damaged file, would end alike."""

    def refuses(folder: Path, artifact: Artifact) -> Any:
        raise broken(artifact, RuntimeError("Check failed: no kernel"))

    with pytest.raises(OctcError) as caught:
        export_artifact(into(shop, run.path), job("openvino", "fp32"), replace(DEVICE, open=refuses))
    assert (caught.value.code, "--force" in caught.value.hint) == ("OCT-E407", False)
    assert "no kernel" in caught.value.message
    assert not (run.artifacts / "openvino-fp32").exists()


def test_x14_existing_output_needs_force_and_is_swapped_whole(shop: Workshop, run: Run) -> None:
    mine = into(shop, run.path)
    folder = export_artifact(mine, job("torch", "fp32"), DEVICE).folder
    (folder / "artifact.json").write_text(json.dumps({"old": True}))
    with pytest.raises(OctcError) as caught:
        export_artifact(mine, job("torch", "fp32"), DEVICE)
    assert caught.value.code == "OCT-E106"

    def dies(folder: Path, artifact: Artifact) -> Any:
        raise OctcError("OCT-E407", "engine died", hint="none")

    with pytest.raises(OctcError, match="engine died"):
        export_artifact(mine, job("torch", "fp32"), replace(DEVICE, open=dies), force=True)
    assert json.loads((folder / "artifact.json").read_text()) == {"old": True}
    export_artifact(mine, job("torch", "fp32"), DEVICE, force=True)
    assert read_artifact(folder).precision == "fp32"
    assert [p.name for p in run.artifacts.iterdir()] == ["torch-fp32"]


def test_d25_calibration_image_in_test_is_refused(shop: Workshop, run: Run) -> None:
    split = shop.source.split
    leaked = split.parts["test"][0]
    with pytest.raises(OctcError) as caught:
        require_disjoint([split.parts["train"][0].sha256, leaked.sha256], split)
    assert caught.value.code == "OCT-E214"
    assert leaked.path in str(caught.value.place)


def test_d25_quantised_checkpoint_that_saw_test_images_is_refused(shop: Workshop, run: Run, patterns: Path) -> None:
    checkpoint, _ = read_checkpoint(run.path / "train")
    facts = {"calibration": [shop.source.split.parts["test"][0].sha256], "observer": "max", "observers": {}, "counts": {}}
    assert shop.quantised is not None
    seen = replace(checkpoint, quantisation=facts, parent={"sha256": checkpoint.sha256})
    write_checkpoint(run.path / "qat", shop.quantised.module.state_dict(), seen)
    with pytest.raises(OctcError) as caught:
        quantise(read_source(run, patterns))
    assert caught.value.code == "OCT-E214"


def test_quantised_checkpoint_of_other_weights_is_refused(shop: Workshop, run: Run, patterns: Path) -> None:
    checkpoint, _ = read_checkpoint(run.path / "train")
    assert shop.quantised is not None
    other = replace(checkpoint, quantisation={}, parent={"sha256": "0" * 64})
    write_checkpoint(run.path / "qat", shop.quantised.module.state_dict(), other)
    with pytest.raises(OctcError) as caught:
        quantise(read_source(run, patterns))
    assert caught.value.code == "OCT-E307"


def test_calibration_is_reproducible_and_from_train_only(shop: Workshop) -> None:
    again = quantise(shop.source)
    assert shop.quantised is not None
    assert again.facts == shop.quantised.facts
    assert again.facts["method"] == "ptq"
    assert set(again.facts["observers"]) == {"max", "percentile", "entropy", "mse"}
    for name, value in again.module.state_dict().items():
        assert np.array_equal(value.numpy(), shop.quantised.module.state_dict()[name].numpy()), name


def test_fallback_leaves_out_more_at_every_step(shop: Workshop) -> None:
    assert shop.quantised is not None
    asked: list[int] = []

    def sensitive() -> frozenset[str]:
        asked.append(1)
        return frozenset({"conv1.3"})

    steps = fallback_steps(shop.quantised, sensitive)
    assert next(steps)[1] == frozenset()
    assert not asked  # only when the first step was rejected
    (_, second), (_, third) = steps
    assert second == {"conv1.3"}
    assert third == {"conv1.3", shop.quantised.names[0], shop.quantised.names[-1]}


def test_golden_images_are_clear_ones(shop: Workshop) -> None:
    from octc.export.golden import choose_golden

    logits = np.array([[3, 0], [1.05, 1], [2, 0], [0.9, 1], [0, 3], [0, 2]], np.float32)
    assert choose_golden([0, 0, 0, 1, 1, 1], logits) == [0, 2, 4, 5]


def test_another_split_than_the_trained_one_is_refused(run: Run, patterns: Path) -> None:
    from octc.datasets.layouts.folders import scan_folder
    from octc.datasets.split import make_split

    make_split(scan_folder(patterns, None), "folder", 1).write(run.split)
    with pytest.raises(OctcError) as caught:
        read_source(run, patterns)
    assert caught.value.code == "OCT-E216"


def test_layers_of_two_engines_are_compared_with_their_biases(shop: Workshop, select: Select, run: Run) -> None:
    """ONNX adds a bias in the layer, OpenVINO behind it: `octc verify` would call every first layer of its files broken."""
    images, found = select.images[:4], {}
    made = [export_artifact(into(shop, run.path), job(*name), DEVICE, select=select) for name in
            (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "int8"))]  # fmt: skip
    for one in made[1:]:
        found[one.artifact.name] = layer_gaps((made[0].folder, made[0].artifact), (one.folder, one.artifact), images)
    assert len(found["openvino-fp32"]) == 16
    assert max(gap.error for gap in found["openvino-fp32"]) < 1e-4
    assert [gap.gain for gap in found["openvino-int8"]] == pytest.approx([1.0] * 16, abs=0.1)
    assert not suspects(found["openvino-int8"])
