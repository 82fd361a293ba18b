"""What the exporter of torch does twice in one run of the tests is done once: it reads its operators, it writes a network.

Half of the processor time of a tiny network's export, and more, is torch's own; the tests export the same network of
`tests/tiny_run.py` dozens of times. A file is given again only for a network that is alike in every tensor, every attribute and
its code, and only within one run of the tests (`EXPORTS`): every run exports each network at least once.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import pickle
import tempfile
from collections.abc import Callable
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
            proto = export(model, args, **options).model_proto
            with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as stream:
                stream.write(proto.SerializeToString())
            Path(stream.name).rename(file)
        return SimpleNamespace(model_proto=onnx.load_model_from_string(file.read_bytes()))

    return exported


def key_of(model: Any, args: Any, options: dict[str, Any]) -> str | None:
    """Of a network, its example and the options of `write_onnx`; None of others, and of a network that cannot be told whole."""
    shapes = options.get("dynamic_shapes")
    if not os.environ.get(EXPORTS) or set(options) != {*ALIKE, "dynamic_shapes"} or not options["dynamo"]:
        return None
    if len(shapes) != 1 or [*shapes[0]] != [0] or shapes[0][0].__name__ != "batch":
        return None
    stream = io.BytesIO()
    try:
        _Whole(stream).dump((model, args, {name: options[name] for name in ALIKE}))
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError):  # a class of a function, a lambda
        return None
    return hashlib.sha256(stream.getvalue()).hexdigest()


class _Whole(pickle.Pickler):
    """With a tensor as its values, its kind and which one of the network it is."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=5)
        self._seen: dict[int, tuple[int, object]] = {}  # the tensor too: what is gone leaves its number to another

    def persistent_id(self, one: object) -> tuple[Any, ...] | None:
        import torch

        if not isinstance(one, torch.Tensor):
            return None
        number, _ = self._seen.setdefault(id(one), (len(self._seen), one))
        values = one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        kind = (type(one).__name__, str(one.dtype), tuple(one.shape), one.stride(), one.requires_grad)
        return (number, *kind, hashlib.sha256(values).hexdigest())
