"""What the exporter of torch does twice in one run of the tests is done once: it reads its operators, it traces, it writes.

Half of the processor time of a tiny network's export, and more, is torch's own; the tests export the same network of
`tests/tiny_run.py` dozens of times. A file is given again only for a network that is alike in every tensor, every attribute and
its code. Where parameters and buffers alone have other values, the graph is given again before torch has optimised it: a trace
knows the kind of those tensors and not their values. torch puts the network's own into it and goes on from there. Both last for
one run of the tests (`EXPORTS`): every run exports each network at least once.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EXPORTS = "WARM_EXPORTS"  # a variable: the folder of this run of the tests
ALIKE = (
    "dynamo",
    "opset_version",
    "input_names",
    "output_names",
    "external_data",
    "verbose",
)  # options of one name and meaning
COUNTED, COUNTERS = "tests.counted", ("_value_counter", "_node_counter")  # new nodes of the optimiser get the next names


def install() -> None:
    """In this process, and in what is forked from it. Nothing here adds an operator to torch's library."""
    import torch
    from torch.onnx._internal.exporter import _registration

    apis = _registration.onnxscript_apis
    apis.get_torchlib_ops = functools.cache(apis.get_torchlib_ops)  # a second, each time
    read = functools.cache(_registration.ONNXRegistry.from_torchlib)
    _registration.ONNXRegistry.from_torchlib = staticmethod(read)  # type: ignore[method-assign,assignment]
    if os.environ.get(EXPORTS):
        torch.onnx.export = _once(torch.onnx.export)  # type: ignore[assignment]


def read_operators() -> None:
    """Of the opsets that octc writes by itself: a second each, and nothing in what is forked later."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from octc.export.formats import FORMATS

    for opset in {one.reads.opset for one in FORMATS.values() if one.reads}:
        ONNXRegistry.from_torchlib(opset_version=opset)


def _once(export: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(export)
    def exported(model: Any, args: Any = (), *more: Any, **options: Any) -> Any:
        key = None if more else key_of(model, args, options)
        if key is None:
            return export(model, args, *more, **options)
        import onnx

        file = Path(os.environ[EXPORTS]) / key
        if not file.is_file():
            form = key_of(model, args, options, values=False)
            with _traced(model, Path(os.environ[EXPORTS]) / f"{form}-traced"):
                proto = export(model, args, **options).model_proto
            _keep(file, proto.SerializeToString())
        return SimpleNamespace(model_proto=onnx.load_model_from_string(file.read_bytes()))

    return exported


def _keep(file: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as stream:
        stream.write(data)
    Path(stream.name).rename(file)


@contextmanager
def _traced(model: Any, file: Path) -> Iterator[None]:
    """The exporter, given the graph of a network of this form where one was traced; else what it traces is kept in `file`."""
    from onnxscript import ir
    from torch.onnx._internal.exporter import _capture_strategies, _core, _onnx_program

    before = (_core._prepare_exported_program_for_export, _core._exported_program_to_onnx_program)
    strategies = _capture_strategies.CAPTURE_STRATEGIES

    def translated(program: Any, *, registry: Any) -> Any:
        made = before[1](program, registry=registry)
        proto, names = ir.serde.serialize_model(made.model), made.model.graph._name_authority
        proto.metadata_props.add(key=COUNTED, value=json.dumps([getattr(names, one) for one in COUNTERS]))
        _keep(file, proto.SerializeToString())
        return made

    def given(program: Any, *, registry: Any) -> Any:
        import onnx

        traced = ir.serde.deserialize_model(onnx.load_model_from_string(file.read_bytes()))
        for name, count in zip(COUNTERS, json.loads(traced.metadata_props.pop(COUNTED)), strict=True):
            setattr(traced.graph._name_authority, name, count)
        made = _onnx_program.ONNXProgram(traced, program)
        made.apply_weights({name: one for name, one in tensors_of(model).items() if name in traced.graph.initializers})
        return made

    def known(**_: Any) -> Any:
        return lambda *_, **__: _capture_strategies.Result(SimpleNamespace(), strategy="given")  # type: ignore[arg-type]

    try:
        if file.is_file():
            _capture_strategies.CAPTURE_STRATEGIES = (known,)  # type: ignore[assignment]
            _core._prepare_exported_program_for_export = lambda program, **_: program
        _core._exported_program_to_onnx_program = given if file.is_file() else translated
        yield
    finally:
        _capture_strategies.CAPTURE_STRATEGIES = strategies
        _core._prepare_exported_program_for_export, _core._exported_program_to_onnx_program = before


def tensors_of(model: Any) -> dict[str, Any]:
    """Parameters and buffers by all of their names: what a trace takes for inputs."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def key_of(model: Any, args: Any, options: dict[str, Any], *, values: bool = True) -> str | None:
    """Of a network, its example and the options of `write_onnx`; None of others, and of a network that cannot be told whole.
    Without `values`, networks whose parameters and buffers are of the same kinds have the same key."""
    shapes = options.get("dynamic_shapes")
    if not os.environ.get(EXPORTS) or set(options) != {*ALIKE, "dynamic_shapes"} or not options["dynamo"]:
        return None
    if len(shapes) != 1 or [*shapes[0]] != [0] or shapes[0][0].__name__ != "batch":
        return None
    stream = io.BytesIO()
    try:
        known = {} if values else {id(one): one for one in tensors_of(model).values()}
        _Whole(stream, known).dump((model, args, {name: options[name] for name in ALIKE}))
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError):  # a class of a function, a lambda
        return None
    return hashlib.sha256(stream.getvalue()).hexdigest()


class _Whole(pickle.Pickler):
    """With a tensor as its values (but for those of `known`), its kind and which one of the network it is."""

    def __init__(self, stream: io.BytesIO, known: dict[int, Any]) -> None:
        super().__init__(stream, protocol=5)
        self._known = known
        self._seen: dict[int, tuple[int, object]] = {}  # the tensor too: what is gone leaves its number to another

    def persistent_id(self, one: object) -> tuple[Any, ...] | None:
        import torch

        if not isinstance(one, torch.Tensor):
            return None
        number, _ = self._seen.setdefault(id(one), (len(self._seen), one))
        kind = (type(one).__name__, str(one.dtype), tuple(one.shape), one.stride(), one.requires_grad)
        if id(one) in self._known:
            return (number, *kind)
        values = one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return (number, *kind, hashlib.sha256(values).hexdigest())
