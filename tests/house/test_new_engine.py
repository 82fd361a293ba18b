"""A new engine is one module and one row: the worked example of CONTRIBUTING.md, carried out."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.bench.parity.references import choose_roles
from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.core.targets import PRECISIONS, TARGETS, Target, called, in_order
from octc.export.formats import FORMATS, Format, Reads, opsets, pairs, wanted
from octc.imaging.preprocess import Preprocess
from octc.machine.host import libraries, versions
from octc.runtimes.golden import TOLERANCES, replay, tolerance_of
from octc.runtimes.registry import open_runtime, prefer, why_not
from octc.store.artifacts import Artifact, Golden, read_artifact, read_golden, write_golden, write_manifest
from octc.store.find import Found
from tests.conftest import Octc
from tests.house.tree import ROOT

PRE = Preprocess(32)
ROW_OF = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What CONTRIBUTING.md shows, in this process and in every one that it starts; the engine's package is not there yet."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## A new engine")[2]
    module, row = ROW_OF.findall(text)
    place = tmp_path / "path"
    place.mkdir()
    (place / "tiny_of_octc.py").write_text(module)
    row = row.replace("octc.runtimes.tiny:", "tiny_of_octc:")
    (place / "usercustomize.py").write_text(f"from octc.core.targets import TARGETS, Target\n{row}")
    (place / "sitecustomize.py").write_text("import usercustomize\n")
    monkeypatch.setitem(TARGETS, "tiny", TARGETS["onnx"])  # to be taken out again
    exec(row, {"TARGETS": TARGETS, "Target": Target})
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.chdir(tmp_path)
    yield place
    for name in ("tinyengine", "tiny_of_octc"):
        sys.modules.pop(name, None)


def installed(place: Path) -> None:
    (place / "tinyengine.py").write_text('__version__ = "1.2.3"\n')


def made(place: Path, target: str = "tiny") -> Found:
    """A complete artifact by hand: a bright picture is the second class."""
    folder = place / f"{target}-fp32"
    folder.mkdir(parents=True)
    weights = np.tile(np.array([[-1.0, 1.0]], np.float32), (PRE.channels, 1))
    np.save(folder / "model.npy", weights)
    picture = io.BytesIO()
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(picture, "PNG")
    prepared = PRE.prepare(Image.open(picture))
    inputs = np.stack([np.full((PRE.channels, PRE.size, PRE.size), level, np.uint8) for level in range(0, 256, 32)])
    logits = (inputs.astype(np.float32).mean(axis=(2, 3)) / 255 @ weights).astype(np.float32)
    write_golden(folder, Golden(inputs, logits, np.frombuffer(picture.getvalue(), np.uint8), prepared))
    lineage = {"run": "r-0001-student-folder", "versions": versions()}
    artifact = Artifact(
        "tiny-fp32", "student", "none", target, "fp32", ("dark", "bright"), PRE, lineage, {}, main_file="model.npy"
    )
    return Found(folder, write_manifest(folder, artifact))


def test_an_artifact_of_a_new_engine_opens_and_replays(example: Path, tmp_path: Path) -> None:
    found = made(tmp_path)
    assert read_artifact(found.folder) == found.artifact
    assert "tinyengine is not installed" in str(why_not(found.artifact))
    with pytest.raises(OctcError) as caught:
        prefer([found])
    assert (caught.value.code, caught.value.hint) == ("OCT-E901", "pip install tinyengine")
    installed(example)
    assert prefer([found]) is found
    runtime = open_runtime(found.folder, found.artifact)
    assert replay(runtime, read_golden(found.folder), found.artifact).ok
    assert in_order(None)[-1] == in_order("arm")[-1] == "tiny"
    assert choose_roles([found], tmp_path, None, named=True).candidates == (found,)


def test_commands_know_a_new_engine(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], octc: Octc) -> None:
    installed(example)
    found = made(tmp_path / "bundles")
    Image.fromarray(np.full((50, 50), 250, np.uint8)).save(tmp_path / "bright.png")
    assert main(("predict", str(found.folder), str(tmp_path / "bright.png"))) == 0
    out, err = capsys.readouterr()
    assert "bright" in out
    assert "tinyengine 1.2.3" in err
    doctor = octc("doctor")
    assert "tinyengine 1.2.3" in doctor.stdout, doctor
    assert "artifact tiny-fp32 runs here" in doctor.stdout
    assert "tinyengine" in libraries()
    assert main(("--version", "--json")) == 0
    assert "tinyengine" in json.loads(capsys.readouterr().out)["data"]["libraries"]
    assert main(("serve-config", "triton", str(found.folder), "-o", str(tmp_path / "server"))) == 2
    assert "Triton has no backend for tiny" in capsys.readouterr().err
    assert main(("bench", str(found.folder), "--dry-run", "--vs", "none")) == 0
    assert "tiny-fp32" in capsys.readouterr().out


def test_a_target_that_is_not_in_the_table_is_refused_with_those_that_are(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path).folder
    monkeypatch.delitem(TARGETS, "tiny")
    with pytest.raises(OctcError) as caught:
        read_artifact(folder)
    assert all(name in f"{caught.value.message} {caught.value.why}" for name in TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_place_of_the_table_is_there(name: str) -> None:
    one = TARGETS[name]
    for place in filter(None, (one.opens, one.checks, one.why_not, one.asks)):
        assert callable(called(place))
    assert set(one.golden) | set(one.parity) | set(one.floats) <= set(PRECISIONS)
    assert {tolerance_of(name, p, whole_set=whole) for p in one.golden for whole in (False, True)} <= set(TOLERANCES.values())


def test_a_new_format_is_known_to_the_commands_that_list_formats(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    row = Format("onnx", {"int8": "octc.export.targets:onnx_int8"}, Reads(20, 18, 21, 10), takes="octc.export.targets:copied")
    monkeypatch.setitem(FORMATS, "tape", row)
    assert ("tape", "int8") in wanted("all", "int8", "student")
    assert main(("export", "--help")) == 0
    assert main(("lint", "--help")) == 0
    assert capsys.readouterr().out.count("tape") == 2
    assert main(("lint", str(tmp_path / "none.onnx"), "--target", "tape")) == 2
    assert "no file" in capsys.readouterr().err  # and not: unknown target
    assert main(("ptq", "--target", "reel")) == 2
    named = capsys.readouterr().err
    assert all(f"'{name}'" in named for name in ("onnx", "openvino", "tape", "all"))


def test_every_format_makes_an_artifact_that_can_be_opened(capsys: pytest.CaptureFixture[str]) -> None:
    for name, precision in pairs():
        assert precision in TARGETS[FORMATS[name].artifact].golden
        assert callable(called(FORMATS[name].makers[precision]))
        assert not FORMATS[name].takes or callable(called(FORMATS[name].takes))
    assert all(
        one.reads is None or one.reads.opset in range(one.reads.lowest, one.reads.highest + 1) for one in FORMATS.values()
    )
    assert len(opsets()) >= 1
    assert main(("export", "--help")) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in FORMATS)
    assert main(("export", "--target", "tape")) == 2
    named = capsys.readouterr().err
    assert all(f"'{name}'" in named for name in FORMATS)
