"""Documents as structs: each takes what its own JSON Schema takes and refuses the rest, however a document is changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octc.core.errors import OctcError
from octc.schemas.artifact import Manifest
from octc.schemas.bench import BenchResult, Measure
from octc.schemas.common import Document, builtins, convert, json_schema
from octc.schemas.runs import RunFile
from octc.schemas.split import SplitFile
from octc.schemas.verify import TESTED, ClassResult, VerifyFile
from tests.bench.test_bench_schema import EXAMPLE
from tests.schema_checks import validate

IMAGE = {"path": "a/b.png", "label": 1, "patient": None, "part": "train", "sha256": "0" * 64}
EXAMPLES: dict[type[Document], dict[str, Any]] = {
    BenchResult: EXAMPLE,
    Manifest: {
        "schema_version": "1.0", "name": "onnx-int8", "role": "student", "model": "m", "target": "onnx", "precision": "int8",
        "classes": ["a", "b"], "lineage": {"run": "r-0001"}, "details": {}, "main_file": "model.onnx", "task": "multilabel",
        "preprocess": {
            "size": 32, "channels": 1, "resize": "bilinear", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "clahe": 2.0,
            "clahe_grid": [8, 8],
        },
        "files": {"model.onnx": {"sha256": "0" * 64, "bytes": 10}},
    },
    RunFile: {
        "id": "r-0001", "kind": "student", "dataset": "ucsd", "created": "now", "status": "done", "fold": [1, 5], "seed": 3,
        "stages": [{"stage": "train", "time_utc": "now", "sha256": "0"}], "recipe": {"name": "edge"}, "patient_ids": "known",
    },
    SplitFile: {
        "dataset": "ucsd", "classes": ["a", "b"], "seed": 3, "dropped": 0, "protocol": "clean", "fold": None, "digest": "0",
        "parts": {"train": [IMAGE, {**IMAGE, "targets": [0, 1], "eye": "1-R"}], "val": [], "test": [IMAGE]},
    },
    VerifyFile: {
        "schema_version": "1.0", "artifact": "onnx-int8", "artifact_sha256": "0", "select": None, "golden": None,
        "test": {"verdict": {"word": "equivalent", "exploratory": False}, "claims": [], "plan": {"margin_pp": 2}},
        "exploratory": [{"verdict": {"word": "fail"}}], "repeated": None,
    },
}  # fmt: skip
OTHERS = (None, True, -1, 0, 7, 0.5, "", "x", "1.0", [], ["a"], [1, 2], {}, {"value": None})
LAX = {Manifest: "classes", SplitFile: "classes", BenchResult: "isa"}  # what __post_init__ says beyond the schema


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(value: dict[str, Any], path: tuple[Any, ...], new: Any) -> dict[str, Any]:
    made = copy.deepcopy(value)
    inner: Any = made
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return made


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_an_example_is_read_and_comes_back(kind: type[Document]) -> None:
    example = EXAMPLES[kind]
    validate(example, json_schema("octc:test", "test", kind))
    found = convert(example, kind)
    assert convert(json.loads(json.dumps(builtins(found))), kind) == found


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_a_struct_and_its_schema_agree(kind: type[Document], data: st.DataObject) -> None:
    example = EXAMPLES[kind]
    path = data.draw(st.sampled_from(list(places(example))))
    made = changed(example, path, data.draw(st.sampled_from((..., *OTHERS))))
    fits = jsonschema.Draft202012Validator(json_schema("octc:test", "test", kind)).is_valid(made)
    try:
        convert(made, kind)
    except OctcError:  # a number above the format that is read: a newer octc's
        assert path == ("schema_version",)
    except ValueError:
        assert not fits or LAX.get(kind) in path, path
    else:
        assert fits, path


def test_a_class_has_a_reason_or_all_of_its_numbers() -> None:
    whole = dict.fromkeys(TESTED) | {"name": "a", "n": 3, "guard": True}
    numbers = ("lost", "gained", "D_pp", "deff", "p", "p_holm", "p_ni", "p_ni_holm")
    whole |= dict.fromkeys(numbers, 1) | {"harm": False}
    with pytest.raises(ValueError, match="reference"):
        convert(whole, ClassResult)  # a side is no null
    assert convert({"name": "a", "n": 0, "guard": False, "reason": None}, ClassResult).reason is None
    with pytest.raises(ValueError, match="no images and no guard"):
        convert({"name": "a", "n": 3, "guard": False, "reason": "x"}, ClassResult)
    with pytest.raises(ValueError, match="needs patients"):
        convert({"name": "a", "n": 3, "guard": False}, ClassResult)


def test_a_field_that_is_not_set_is_left_out() -> None:
    assert builtins(Measure(value=1.0)) == {"value": 1.0}
    assert builtins(Measure(value=None, reason="why")) == {"value": None, "reason": "why"}
    with pytest.raises(ValueError, match="needs a reason"):
        convert({"value": None}, Measure)


def test_a_schema_names_no_file_and_holds_all_its_parts() -> None:
    text = json.dumps(json_schema("octc:test", "test", BenchResult))
    schema = json.loads(text)
    assert schema["$id"] == "octc:test"
    assert {part["$ref"].rpartition("/")[2] for part in _references(schema)} <= set(schema["$defs"])


def _references(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node
        for inner in node.values():
            yield from _references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _references(inner)
