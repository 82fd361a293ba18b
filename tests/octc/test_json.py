"""One reader of JSON for the whole house, and it is strict: what stands twice or is no number is refused, not chosen."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.core.files import MOST_DEPTH, parse_json, read_json, write_json
from octc.datasets.layouts.csv_table import read_table
from octc.imaging.preprocess import Preprocess
from octc.schemas.configuration import read_settings
from octc.store.artifacts import MANIFEST, Artifact, Golden, read_artifact, read_golden, write_golden, write_manifest
from octc.store.runs import Run
from tests.house.tree import FLOORS, ROOT

REFUSED = {
    "a key twice": '{"classes": ["CNV", "NORMAL"], "classes": ["NORMAL", "CNV"]}',
    "twice with equal values": '{"a": 1, "a": 1}',
    "twice, spelled in two ways": '{"classes": 1, "\\u0063lasses": 2}',
    "twice, deep down": '[{"a": [{"b": {"c": 1, "d": 2, "c": 3}}]}]',
    "NaN": '{"a": NaN}',
    "Infinity": "[Infinity]",
    "-Infinity": "[-Infinity]",
    "a number that is infinite": '{"a": 1e999}',
    "a negative one": "[-1e400]",
    "nested too deep": "[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1),
    "nested far too deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "two values": "{} {}",
    "nothing": "",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(text: str, tmp_path: Path) -> None:
    for given in (text, text.encode(), b"\xef\xbb\xbf" + text.encode()):
        with pytest.raises(ValueError, match=r"."):
            parse_json(given)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "a.json")


def test_the_key_is_named() -> None:
    with pytest.raises(ValueError, match="'classes'"):
        parse_json(REFUSED["a key twice"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json('{"class": "Drüsen"}'.encode(encoding))


def test_what_is_read_is_what_json_says(tmp_path: Path) -> None:
    value: dict[str, Any] = {
        "a": [1, 2.5, -0.0, 1e-320, 1e308, None, True, "Drüsen \ud800", 10**400],
        "b": {"a": {}, "": []},
        "c": "a",
    }
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert parse_json(b"\xef\xbb\xbf" + (tmp_path / "a.json").read_bytes()) == value
    deepest = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert parse_json(deepest) == json.loads(deepest)


def test_size_is_limited_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    assert read_json(tmp_path / "a.json", 9) == [1, 2, 3]
    with pytest.raises(ValueError, match="limit"):
        read_json(tmp_path / "a.json", 8)


def test_nothing_in_the_house_reads_json_in_another_way() -> None:
    others = set()
    for path in (path for folder in (*FLOORS, "benchmarks") for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if re.search(r"json\s*\.\s*(load|JSOND)", text) else ():
            if isinstance(node, ast.Attribute) and node.attr in ("load", "loads", "JSONDecoder"):
                named = isinstance(node.value, ast.Name) and node.value.id == "json"
                others |= {path.relative_to(ROOT).as_posix()} if named else set()
    # the worker runs where octc is not; a line of a table of predictions may hold NaN, which is refused where it is judged
    assert others == {"octc/core/files.py", "runtimes/tensorrt/worker.py", "bench/parity/tables/read.py"}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"not looked at here")
    made = Artifact(
        name="a", role="student", model="test_resnet", target="onnx", precision="fp32", classes=("CNV", "DME", "NORMAL"),
        preprocess=Preprocess(64), lineage={}, main_file="model.onnx",
    )  # fmt: skip
    write_manifest(tmp_path, made)
    return tmp_path


@pytest.mark.parametrize("key", ["classes", "preprocess", "target", "files", "task"])
def test_a_manifest_with_a_key_twice_is_refused(artifact: Path, key: str) -> None:
    """The second one would win: other labels, another normalisation, other sums."""
    path = artifact / MANIFEST
    value = json.loads(path.read_text())
    again = value[key][::-1] if key == "classes" else value[key]
    text = path.read_text().rstrip()
    assert read_artifact(artifact).classes == ("CNV", "DME", "NORMAL")
    path.write_text(f'{text[:-1]}, "{key}": {json.dumps(again)}}}')
    assert json.loads(path.read_text())[key] == again  # what Python's own reader would have taken
    with pytest.raises(OctcError) as caught:
        read_artifact(artifact)
    assert caught.value.code == "OCT-E502"
    assert f"'{key}'" in caught.value.message


def test_a_manifest_with_a_class_twice_is_refused(artifact: Path) -> None:
    path = artifact / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": ["CNV", "CNV", "NORMAL"]}))
    with pytest.raises(OctcError) as caught:
        read_artifact(artifact)
    assert caught.value.code == "OCT-E502"


def test_golden_arrays_that_stand_twice_are_refused(tmp_path: Path) -> None:
    import zipfile

    golden = Golden(
        np.zeros((1, 1, 8, 8), np.uint8), np.ones((1, 2), np.float32), np.zeros(4, np.uint8), np.zeros((1, 1, 8, 8), np.uint8)
    )
    write_golden(tmp_path, golden)
    assert read_golden(tmp_path).logits[0, 0] == 1
    with zipfile.ZipFile(tmp_path / "golden.npz", "a") as packed, pytest.warns(UserWarning, match="Duplicate"):
        packed.writestr("logits.npy", packed.read("logits.npy"))
    with pytest.raises(OctcError) as caught:
        read_golden(tmp_path)
    assert caught.value.code == "OCT-E502"


def test_a_run_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"id": "r-0001", "kind": "student", "kind": "teacher", "stages": []}')
    with pytest.raises(OctcError) as caught:
        Run(tmp_path).read()
    assert caught.value.code == "OCT-E107"


@pytest.mark.parametrize("plan", ['{"module": "nothing_here", "module": "tensorrt"}', '{"module": NaN}', "[" * 100_000])
def test_the_worker_for_tensorrt_is_as_strict(tmp_path: Path, plan: str) -> None:
    (tmp_path / "p.json").write_text(plan)
    worker = ROOT / "runtimes" / "tensorrt" / "worker.py"
    done = subprocess.run([sys.executable, str(worker), "probe", "p.json"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 3
    assert json.loads((tmp_path / "p.result.json").read_text())["error"]["stage"] == "plan"


@pytest.mark.parametrize(
    "text",
    ["train:\n  seed: 1\n  seed: 2\n", "train:\n  seed: 1\nexport: {}\ntrain:\n  seed: 2\n", "train: {seed: 1, seed: 2}\n",
     "offline: true\n'offline': false\n"],
)  # fmt: skip
def test_yaml_with_a_key_twice_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(OctcError) as caught:
        read_settings(str(tmp_path / "c.yaml"), {}, tmp_path)
    assert caught.value.code == "OCT-E105"
    assert "twice" in caught.value.message
    assert "c.yaml:" in str(caught.value.place)


@pytest.mark.parametrize("name", ["c.toml", "c.yaml"])
def test_configuration_that_is_nested_without_end_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(("a = " if name == "c.toml" else "") + "[" * 100_000)
    with pytest.raises(OctcError) as caught:
        read_settings(str(tmp_path / name), {}, tmp_path)
    assert caught.value.code == "OCT-E105"


def test_two_variables_for_one_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        read_settings(None, {"OCTC_ARTIFACT__SIGNATURE": "required", "OCTC_BUNDLE__SIGNATURE": "off"}, tmp_path)
    assert caught.value.code == "OCT-E102"


def test_tables_with_a_column_twice_are_refused(tmp_path: Path) -> None:
    for header in ("path,label,label", "path,label,age,age", "path, label,path"):
        (tmp_path / "t.csv").write_text(f"{header}\n" + ",".join("abcd"[: header.count(",") + 1]) + "\n")
        with pytest.raises(OctcError) as caught:
            read_table(tmp_path / "t.csv", ("path", "label"), "a table")
        assert caught.value.code == "OCT-E209"
    (tmp_path / "t.csv").write_text("path,label,,\na,b,,\n")  # spreadsheets leave such columns behind
    assert read_table(tmp_path / "t.csv", ("path", "label"), "a table")[0][1]["label"] == "b"


def test_other_tables_with_a_column_twice_are_refused(tmp_path: Path) -> None:
    from octc.bench.timing.power.energy import read_power_csv

    rows = "1700000000,5,6\n1700000001,5,6\n"
    (tmp_path / "p.csv").write_text(f"time,watts,watts\n{rows}")
    with pytest.raises(OctcError) as caught:
        read_power_csv(tmp_path / "p.csv")
    assert caught.value.code == "OCT-E104"
    (tmp_path / "p.csv").write_text(f"time,watts,volts\n{rows}")
    assert read_power_csv(tmp_path / "p.csv").values == [5, 5]


def test_a_history_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    from octc.train.loop.history import read_history

    (tmp_path / "history.csv").write_text("epoch,val_acc,val_acc\n1,0.5,0.9\n")
    with pytest.raises(OctcError) as caught:
        read_history(tmp_path)
    assert caught.value.code == "OCT-E501"


def test_records_with_an_array_twice_are_refused(tmp_path: Path) -> None:
    import zipfile

    from octc.bench.parity.inference import Records, read_records, write_records

    path = tmp_path / "r.npz"
    write_records(path, Records(("a",), (0,), (None,), np.zeros((1, 1, 2), np.float32), ("identity",), "sum", {}, {}))
    assert read_records(path).artifact == "sum"
    with zipfile.ZipFile(path, "a") as packed, pytest.warns(UserWarning, match="Duplicate"):
        packed.writestr("labels.npy", packed.read("labels.npy"))
    with pytest.raises(OctcError) as caught:
        read_records(path)
    assert caught.value.code == "OCT-E708"
