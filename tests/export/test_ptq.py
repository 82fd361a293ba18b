"""The PTQ engines on a run that learned something: real libraries, real files, the same images."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.export.pipeline import export_artifact
from octc.export.ptq import compare
from octc.export.ptq import engines as ptq
from octc.export.ptq.compare import score, write_entries
from octc.export.ptq.engines import ENGINES, find_engine, run_unoptimised
from octc.export.source import Select, quantise, read_select, read_source
from octc.export.targets import Job, Workshop
from octc.store.artifacts import Artifact, read_artifact, read_golden
from octc.store.runs import Run
from tests.export.engines import DEVICE, Engine, open_engine

pytestmark = pytest.mark.slow


def exactly(folder: Path, artifact: Artifact) -> Engine:
    """What the file says: kernels of x86 without VNNI overflow on 8-bit weights, and ModelOpt has no others."""
    return Engine(lambda batch: run_unoptimised(folder / artifact.main_file, batch))


EXACT = replace(DEVICE, open=exactly)


@pytest.fixture(scope="module")
def shop(trained: Run, patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    source = read_source(trained, patterns)
    return Workshop(source, tmp_path_factory.mktemp("shop"), quantise(source, after=True))


@pytest.fixture(scope="module")
def select(shop: Workshop) -> Select:
    return read_select(shop.source)


@pytest.mark.parametrize("engine", [name for name, one in ENGINES.items() if one.exported])
def test_every_engine_makes_an_artifact_that_says_who_made_it(shop: Workshop, select: Select, engine: str) -> None:
    published = export_artifact(shop, Job("onnx", "int8", 20, engine=engine), EXACT, select=select)
    artifact = read_artifact(published.folder)
    assert artifact.name == published.folder.name == f"onnx-int8-{engine}"
    how = artifact.details["quantisation"]
    assert how["engine"] == engine
    assert how["method"] == "ptq"
    train = {s.sha256 for s in shop.source.split.parts["train"]}
    assert len(how["calibration"]) == how["calibration_images"] >= 16
    assert set(how["calibration"]) <= train
    assert artifact.details["int8_convolutions"] >= 10
    assert artifact.details["opset"] == 20
    assert artifact.details["golden"]["ok"]
    assert published.gate is not None
    assert published.gate.accepted
    golden = read_golden(published.folder)
    assert (exactly(published.folder, artifact)(golden.inputs).argmax(1) == golden.logits.argmax(1)).all()


def test_all_engines_side_by_side(shop: Workshop, select: Select, tmp_path: Path) -> None:
    entries, absent = write_entries(shop, None, tmp_path, ("openvino",), lambda _: None)
    assert absent == {}
    assert [entry.engine for entry in entries] == ["fp32", *ENGINES]
    labels = [s.label for s in select.samples]
    for entry in entries:
        read_artifact(entry.folder)
        answers = open_engine(entry.folder, entry.artifact)
        logits = np.concatenate([answers(image[None]) for image in select.images])
        found = score(select.reference, logits, labels)
        assert found.agreement > 0.9, entry.engine
        assert entry.engine == "fp32" or 5 < found.snr_db < 60, entry.engine
        assert found.accuracy == pytest.approx((logits.argmax(1) == labels).mean())
    sizes = {entry.engine: entry.bytes for entry in entries}
    assert sizes["octc"] < 0.6 * sizes["fp32"]


def test_scores_are_counted_by_hand() -> None:
    reference = np.array([[2, 0], [2, 0], [0, 2], [0, 2]], np.float32)
    logits = np.array([[2, 0], [0, 2], [0, 2], [2, 0]], np.float32)
    found = score(reference, logits, [0, 0, 0, 0])
    assert (found.agreement, found.accuracy, found.lost, found.gained) == (0.5, 0.5, 1, 1)
    assert found.snr_db == pytest.approx(10 * np.log10(16 / 16))


@pytest.mark.parametrize(
    ("name", "target", "code", "hint"),
    [
        ("magic", "onnx", "OCT-E104", "octc, onnxruntime, nncf, modelopt"),
        ("nncf-default", "openvino", "OCT-E104", "octc, onnxruntime, nncf, modelopt"),
        ("nncf", "tensorrt", "OCT-E102", "--target onnx or openvino"),
    ],
)
def test_requests_that_cannot_be_met(name: str, target: str, code: str, hint: str) -> None:
    with pytest.raises(OctcError) as caught:
        find_engine(name, target)
    assert caught.value.code == code
    assert hint in caught.value.hint


@pytest.mark.parametrize(("name", "module"), [("nncf", "nncf"), ("modelopt", "modelopt"), ("modelopt", "requests")])
def test_an_engine_that_is_absent_is_refused_with_the_pip_line(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(ptq, "have", lambda wanted: wanted != module)
    with pytest.raises(OctcError) as caught:
        find_engine(name, "onnx")
    assert caught.value.code == "OCT-E901"
    assert caught.value.hint == "pip install 'octc[ptq]'"


def test_an_engine_is_not_absent_because_the_disk_is_full(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nncf

    def fails(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nncf, "quantize", fails)
    monkeypatch.setattr(compare, "ENGINES", {"nncf": ENGINES["nncf"]})
    fresh = Workshop(shop.source, shop.folder, shop.quantised, {k: v for k, v in shop.made.items() if k[0] == "float"})
    with pytest.raises((OctcError, OSError)) as caught:
        write_entries(fresh, None, tmp_path, ("onnx",), lambda _: None)
    fault = fault_of(caught.value)
    assert fault is not None
    assert fault.code == "OCT-E904"


def test_a_library_that_fails_publishes_nothing(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    import nncf

    def fails(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("first line\nno operator for this")

    monkeypatch.setattr(nncf, "quantize", fails)
    fresh = Workshop(shop.source, shop.folder, shop.quantised, {k: v for k, v in shop.made.items() if k[0] == "float"})
    with pytest.raises(OctcError, match="nncf cannot quantise test_resnet: no operator for this") as caught:
        export_artifact(fresh, Job("openvino", "int8", 20, engine="nncf"), DEVICE)
    assert caught.value.code == "OCT-E407"
    assert not (shop.source.run.artifacts / "openvino-int8-nncf").exists()
