"""A recording stand-in for the `tensorrt` module, made of the names of one real version: what is not listed does not exist.

It can check which names are called, in which order, and feed back what a test wants to see. It never judges whether a graph
compiles: that is what NVIDIA's compiler is for. Copied as tensorrt.py into a folder on PYTHONPATH; FAKE_TRT holds its settings.
"""

import ctypes
import json
import math
import os
from pathlib import Path

SETTINGS = json.loads(os.environ["FAKE_TRT"])
__version__ = SETTINGS["version"].split("-")[-1]
CALLS = []


def _names():
    found = {}
    versions = json.loads(Path(SETTINGS["names"]).read_text())["versions"]
    for version, changes in versions.items():
        for key, change in changes.items():
            found[key] = (found.get(key, set()) - set(change.get("gone", []))) | set(change.get("new", []))
        if version == SETTINGS["version"]:
            return found
    raise KeyError(SETTINGS["version"])


NAMES = _names()


def _record(*what):
    CALLS.append([w if isinstance(w, (str, int, float, list, bool, type(None))) else str(w) for w in what])
    Path(SETTINGS["log"]).write_text(json.dumps(CALLS))


class _Member:
    def __init__(self, enum, name, value):
        self.name, self._enum, self._value = name, enum, value

    def __int__(self):
        return self._value

    def __str__(self):
        return self._enum + "." + self.name

    def __eq__(self, other):
        return str(self) == str(other)

    __hash__ = None


def _enum(name):
    members = sorted(NAMES["enum " + name])
    return type(name, (), {member: _Member(name, member, place) for place, member in enumerate(members)})


class _Thing:
    """An object of a class of TensorRT; `own` are the answers that this stand-in gives, all names are checked."""

    kind = ""

    def __init__(self, **own):
        object.__setattr__(self, "own", own)

    def __getattr__(self, name):
        if name not in NAMES["class " + self.kind]:
            raise AttributeError(self.kind + " of " + SETTINGS["version"] + " has no " + name)
        answer = object.__getattribute__(self, "own").get(name, lambda *args: True)

        def call(*args):
            _record(self.kind, name, *args)
            return answer(*args)

        return call if callable(answer) else answer

    def __setattr__(self, name, value):
        if name not in NAMES["class " + self.kind]:
            raise AttributeError(self.kind + " of " + SETTINGS["version"] + " has no " + name)
        _record(self.kind, name + "=", value)


def _thing(kind, **own):
    return type(kind, (_Thing,), {"kind": kind})(**own)


def _class(kind, init):
    """A class whose instances are things, and whose listed names can be asked for with hasattr."""
    body = {name: property(lambda self: None) for name in NAMES["class " + kind]}
    return type(kind, (), {**body, "__new__": staticmethod(lambda cls, *args: init(*args))})


class _ILogger:
    def __init__(self):
        pass

    class Severity:
        ERROR, WARNING, VERBOSE = "Severity.ERROR", "Severity.WARNING", "Severity.VERBOSE"


def _layer(one):
    into, out = ([_thing("ITensor", name=name) for name in one[side]] for side in ("in", "out"))
    kind = _Member("LayerType", one["type"], 0)
    more = {"get_input": lambda i: into[i], "get_output": lambda i: out[i], "num_inputs": len(into), "num_outputs": len(out)}
    return _thing("ILayer", name=one["name"], type=kind, **more)


def _builder(logger):
    def build(_network, _config):
        for severity, text in SETTINGS.get("says", []):
            logger.log("Severity." + severity, text)
        return bytes(SETTINGS.get("engine_bytes", 4000)) if SETTINGS.get("builds", True) else None

    layers = [_layer(one) for one in SETTINGS.get("layers", [])]
    network = _thing("INetworkDefinition", num_layers=len(layers), get_layer=lambda i: layers[i])
    cache = _thing("ITimingCache", serialize=lambda: b"timings")
    config = _thing("IBuilderConfig", create_timing_cache=lambda data: cache, get_timing_cache=lambda: cache)
    return _thing(
        "Builder", create_network=lambda flags: network, create_builder_config=lambda: config, build_serialized_network=build,
        create_optimization_profile=lambda: _thing("IOptimizationProfile"),
    )  # fmt: skip


def _parser(_network, _logger):
    errors = SETTINGS.get("parser_errors", [])
    made = [
        _thing("ParserError", desc=lambda e=e: e[0], node_name=lambda e=e: e[1], node_operator=lambda e=e: e[2], line=lambda: 7)
        for e in errors
    ]
    return _thing("OnnxParser", parse_from_file=lambda path: not errors, num_errors=len(errors), get_error=lambda i: made[i])


def _runtime(_logger):
    shapes = {"image": SETTINGS.get("shape", [-1, 1, 4, 4]), "logits": [-1, SETTINGS.get("classes", 4)]}
    where, sizes = {}, {}

    def run(_stream):
        batch = sizes["image"][0]
        size = math.prod(shapes["image"][1:])
        pixels = bytes(ctypes.string_at(where["image"], batch * size))
        rows = [[pixels[size * i + k] * 0.5 for k in range(shapes["logits"][1])] for i in range(batch)]
        flat = [value for row in rows for value in row]
        ctypes.memmove(where["logits"], (ctypes.c_float * len(flat))(*flat), 4 * len(flat))
        return SETTINGS.get("executes", True)

    def fits(name, shape):
        sizes[name] = list(shape)
        return shape[0] <= 8

    def context():
        return _thing("IExecutionContext", set_input_shape=fits, execute_async_v3=run,
                      set_tensor_address=lambda name, address: where.update({name: address}))  # fmt: skip

    looker = _thing("EngineInspector", get_engine_information=lambda form: SETTINGS.get("information", '{"Layers": []}'))
    mode = {"image": _Member("TensorIOMode", "INPUT", 1), "logits": _Member("TensorIOMode", "OUTPUT", 2)}
    kinds = {"image": "uint8", "logits": "float32"}
    engine = _thing(
        "ICudaEngine", num_io_tensors=2, get_tensor_name=lambda i: ["image", "logits"][i], get_tensor_mode=lambda n: mode[n],
        get_tensor_shape=lambda n: shapes[n], get_tensor_dtype=lambda n: kinds[n], create_execution_context=context,
        create_engine_inspector=lambda: looker,
    )  # fmt: skip
    return _thing("Runtime", deserialize_cuda_engine=lambda data: engine if SETTINGS.get("loads", True) else None)


def _nptype(kind):
    import numpy

    return getattr(numpy, kind) if isinstance(kind, str) else numpy.float32


MADE = {"Builder": _builder, "OnnxParser": _parser, "Runtime": _runtime}


def __getattr__(name):
    if name not in NAMES["module"]:
        raise AttributeError("tensorrt " + SETTINGS["version"] + " has no " + name)
    if name in ("ILogger", "Logger"):
        return _ILogger
    if name == "nptype":
        return _nptype
    if "enum " + name in NAMES:
        return _enum(name)
    if name in MADE:
        return _class(name, MADE[name])
    return _class(name, lambda *args: _thing(name))
