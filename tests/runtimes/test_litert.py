"""LiteRT files: what the reader sees without the engine, what it refuses, which kernels run."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from octc.core.errors import OctcError
from octc.runtimes.graph_input import read_graph_input
from octc.runtimes.litert import _quiet
from octc.runtimes.litert_reader import OPERATORS, scan_litert
from octc.runtimes.registry import open_runtime
from octc.runtimes.safety import check_model
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from tests.tiny_artifacts import copied, folder_of, resign

WITHOUT_DELEGATES = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


@pytest.fixture
def data(run: Run) -> bytes:
    return (folder_of(run, "litert-int8") / "model.tflite").read_bytes()


def test_the_reader_sees_what_litert_sees(data: bytes) -> None:
    found = scan_litert(data)
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=WITHOUT_DELEGATES)
    kinds = [one["op_name"] for one in interpreter._get_ops_details()]
    assert found.operators == {kind: kinds.count(kind) for kind in set(kinds)}
    assert (found.graphs, found.refused, found.outside) == (1, (), ())
    assert found.inputs == (("image", "uint8", ("?", "64", "64", "1")),)


def test_the_numbers_of_operators_are_the_schemas_own() -> None:
    assert all(getattr(schema.BuiltinOperator, name) == number for number, name in OPERATORS.items())


def test_what_other_threads_write_while_the_engine_is_made_quiet_comes_out(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines of a server's log were lost while it read its artifacts again, and warnings of `octc predict`."""
    with _quiet():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
        thread = threading.Thread(target=os.write, args=(2, b'{"event": "request"}\nhalf'))
        thread.start()
        thread.join()
    folder = folder_of(run, "litert-int8")
    open_runtime(folder, read_artifact(folder), threads=1).close()
    assert capfd.readouterr().err == '{"event": "request"}\nhalf'


def test_the_input_is_read_without_the_engine(run: Run) -> None:
    folder = folder_of(run, "litert-int8")
    assert str(read_graph_input(folder, read_artifact(folder))) == "image: uint8 [?, 64, 64, 1]"


def test_no_bytes_make_the_reader_fail_in_another_way(data: bytes) -> None:
    """Cut files, and files with changed bytes anywhere: read, or refused with a ValueError."""
    rng, refused = np.random.default_rng(0), 0
    for trial in range(300):
        spoiled = bytearray(data[: int(rng.integers(0, len(data)))] if trial % 3 == 0 else data)
        for place in rng.integers(0, max(len(spoiled), 1), 0 if trial % 3 == 0 else 60):
            spoiled[place] = int(rng.integers(0, 256))
        try:
            scan_litert(bytes(spoiled))
        except ValueError:
            refused += 1
    assert refused > 100


def changed(data: bytes, change: object) -> bytes:
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    change(model)  # type: ignore[operator]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def custom(model: schema.ModelT) -> None:
    model.operatorCodes[0].customCode = b"TFLite_Detection_PostProcess"


def loop(model: schema.ModelT) -> None:
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.WHILE


def second(model: schema.ModelT) -> None:
    model.subgraphs.append(model.subgraphs[0])


def outside(model: schema.ModelT) -> None:
    model.buffers[3].data, model.buffers[3].offset, model.buffers[3].size = None, 4096, 64


def external(model: schema.ModelT) -> None:
    model.subgraphs[0].tensors[1].externalBuffer = 1


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (custom, "OCT-E504", "custom TFLite_Detection"),
        (loop, "OCT-E504", "builtin 119"),
        (second, "OCT-E504", "2 graphs"),
        (outside, "OCT-E503", "buffer 3"),
        (external, "OCT-E503", "tensor "),
    ],
)
def test_what_no_graph_of_a_classifier_holds_is_refused(run: Run, tmp_path: Path, change: object, code: str, word: str) -> None:
    folder = copied(run, "litert-int8", tmp_path)
    path = folder / "model.tflite"
    path.write_bytes(changed(path.read_bytes(), change))
    resign(folder)
    with pytest.raises(OctcError) as caught:
        check_model(folder, read_artifact(folder))
    assert caught.value.code == code
    assert word in caught.value.message


def test_the_convolutions_run_in_the_delegate_and_a_static_batch_takes_any_count(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(run, "litert-int8")
    artifact = read_artifact(folder)
    runtime = open_runtime(folder, artifact, threads=1, batch=4)
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 64, 64), dtype=np.uint8)
    rows = runtime(images)
    single = open_runtime(folder, artifact, threads=1)
    np.testing.assert_allclose(rows, np.concatenate([single(one[None]) for one in images]), atol=1e-5)
    assert runtime.facts["delegated"]["CONV_2D int8"] == artifact.details["int8_convolutions"]
    assert not [name for name in runtime.facts["not_delegated"] if name.startswith(("CONV", "DEPTHWISE"))]
    assert capfd.readouterr().err == ""
