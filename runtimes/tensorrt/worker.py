"""Builds and runs TensorRT engines under the Python that has TensorRT. One file: standard library, numpy and tensorrt.

    python3.10 trt_worker.py build|inspect|verify|bench|probe PLAN.json

A plan is JSON, its paths are relative to it; of a "weak" and a "strong" plan the version found here decides. The result is JSON
on the file that the plan names, the log goes to stderr. Exit codes: 0 ok, 2 build failed or outputs differ, 3 bad plan,
4 environment. It needs nothing of octc: copy it with plan and ONNX and run it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

OK, FAILED, BAD_PLAN, ENVIRONMENT = 0, 2, 3, 4
OLDEST, STRONG_FROM = (10, 0), (10, 12)  # no feature tells 10.11 from 10.12, where strong typing became complete
LAYERS = "Layers:"  # what TensorRT for RTX prints while it builds; its inspector needs a GPU
TO_DEVICE, TO_HOST, RELAXED = 1, 2, 2  # cudaMemcpyKind, cudaStreamCaptureMode


class WorkerError(Exception):
    """code: exit code. stage: environment, plan, parse, build, load or run. details: what TensorRT said, as data."""

    def __init__(self, code: int, stage: str, message: str, details: Any = ()) -> None:
        super().__init__(message)
        self.code, self.stage, self.details = code, stage, list(details)


def typing_for(version: str, is_rtx: bool = False) -> str | None:
    """ "weak" or "strong" for a version such as "10.3.0"; None where octc does not support it."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    return "strong" if is_rtx or numbers >= STRONG_FROM else "weak" if numbers >= OLDEST else None


def choose(plan: dict[str, Any], trt: Any) -> dict[str, Any]:
    """The plan for this version; refuses one that it cannot build."""
    typing, version = typing_for(trt.__version__, hasattr(trt, "ComputeCapability")), trt.__version__
    if typing is None:
        raise WorkerError(ENVIRONMENT, "environment", f"TensorRT {version} is not supported: octc builds with 10.0 and later")
    plan = plan.get(typing, plan)
    missing = [name for name in plan["builder_flags"] if not hasattr(trt.BuilderFlag, name)]
    if plan["typing"] != typing:
        raise WorkerError(BAD_PLAN, "plan", f"TensorRT {version} needs a {typing}-typed plan, not a {plan['typing']}-typed one")
    if plan["device"] != "GPU":
        raise WorkerError(BAD_PLAN, "plan", f"octc does not build for {plan['device']}: DLA has no explicit INT8")
    if missing:
        raise WorkerError(BAD_PLAN, "plan", f"TensorRT {version} has no builder flag {', '.join(missing)}")
    return plan


def make_log(trt: Any) -> Any:
    """A logger whose `lines` are (severity, message); VERBOSE ones only where they list the layers."""

    class Log(trt.ILogger):  # type: ignore[misc]
        lines: list[tuple[str, str]] = []  # noqa: RUF012  (every call makes a class of its own)

        def log(self, severity: Any, message: str) -> None:
            name = str(severity).rsplit(".", maxsplit=1)[-1]
            if name != "VERBOSE" or message.startswith(LAYERS):
                self.lines.append((name, message))
            if name != "VERBOSE":
                sys.stderr.write(f"[{name}] {message}\n")

    return Log()


def build(trt: Any, plan: dict[str, Any], base: Path) -> dict[str, Any]:
    """Parse and build; writes the engine, the dump of its layers and the timing cache. Returns facts."""
    started, logger, onnx = time.monotonic(), make_log(trt), base / plan["onnx"]
    if plan.get("onnx_sha256") not in (None, hashlib.sha256(onnx.read_bytes()).hexdigest()):
        raise WorkerError(BAD_PLAN, "plan", f"{plan['onnx']} is not the file that the plan was made for")
    builder = trt.Builder(logger)
    kinds = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(sum(1 << int(getattr(kinds, name)) for name in plan["network_flags"]))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = map(parser.get_error, range(parser.num_errors))  # their fields are methods
        found = [{"text": e.desc(), "node": e.node_name(), "operator": e.node_operator(), "line": e.line()} for e in errors]
        said = [f"{one['node'] or 'graph'} ({one['operator'] or '?'}): {one['text']}" for one in found]
        raise WorkerError(FAILED, "parse", said[0] if said else last_error(logger.lines), found)
    floats = dequantise(trt, network, plan["dequantize"])
    config = configure(trt, builder, plan)
    cache = base / plan["timing_cache"] if plan["timing_cache"] else None
    known = cache.read_bytes() if cache and cache.is_file() else b""
    if cache:
        config.set_timing_cache(config.create_timing_cache(known), False)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:  # it does not raise
        raise WorkerError(FAILED, "build", last_error(logger.lines), [text for name, text in logger.lines if "ERROR" in name])
    data = bytes(memoryview(serialized))
    write(base / plan["output"], data)
    if cache:
        write(cache, bytes(memoryview(config.get_timing_cache().serialize())))
    peak = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    printed = [text for _, text in logger.lines if text.startswith(LAYERS)]
    write(base / plan["layers"], printed[-1].encode()) if printed else inspect(trt, plan, base, logger)
    return {
        **{key: plan[key] for key in ("typing", "variant", "onnx", "layers", "network_flags", "builder_flags")},
        "engine": plan["output"],
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "dequantized": floats,
        "timing_cache": ("read" if known else "new") if cache else None,
        "seconds": round(time.monotonic() - started, 3),
        "peak_rss_mib": int(peak[0].split()[1]) >> 10,
        "warnings": sorted({text for name, text in logger.lines if name == "WARNING"}),
    }


def configure(trt: Any, builder: Any, plan: dict[str, Any]) -> Any:
    """The builder's configuration: workspace, level, flags, compute capabilities, profiles."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(plan["workspace_mb"]) << 20)
    config.builder_optimization_level = int(plan["opt_level"])
    config.profiling_verbosity = getattr(trt.ProfilingVerbosity, plan["profiling_verbosity"])
    for name in plan["builder_flags"]:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if hasattr(config, "num_compute_capabilities") and (named := plan["compute_capabilities"]):  # else it asks a GPU
        config.num_compute_capabilities = len(named)
        for place, name in enumerate(named):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), place)
    for shapes in plan["profiles"]:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, shape["min"], shape["opt"], shape["max"])
        config.add_optimization_profile(profile)
    return config


def dequantise(trt: Any, network: Any, names: Any) -> list[str]:
    """Take convolutions off the Q/DQ pair in front of them, so that they run in float. The names that were found."""
    layers = [network.get_layer(i) for i in range(network.num_layers)] if names else []
    makers = {layer.get_output(k).name: layer for layer in layers for k in range(layer.num_outputs)}
    done = []
    for layer in [layer for layer in layers if layer.name in names and layer.type == trt.LayerType.CONVOLUTION]:
        back = makers.get(layer.get_input(0).name)
        front = makers.get(back.get_input(0).name) if back is not None and back.type == trt.LayerType.DEQUANTIZE else None
        if front is not None and front.type == trt.LayerType.QUANTIZE:
            layer.set_input(0, front.get_input(0))
            done.append(layer.name)
    return sorted(done)


def last_error(lines: list[tuple[str, str]]) -> str:
    return next((text for name, text in reversed(lines) if "ERROR" in name), "TensorRT returned nothing and said nothing")


def inspect(trt: Any, plan: dict[str, Any], base: Path, logger: Any = None) -> dict[str, Any]:
    engine = trt.Runtime(logger or make_log(trt)).deserialize_cuda_engine((base / plan["output"]).read_bytes())
    if engine is None:
        raise WorkerError(ENVIRONMENT, "load", "the engine cannot be loaded here")
    looker, context = engine.create_engine_inspector(), engine.create_execution_context()
    for name, shape in plan["profiles"][0].items():
        context.set_input_shape(name, shape["opt"])
    looker.execution_context = context  # without it a dynamic batch axis hides every data type
    write(base / plan["layers"], looker.get_engine_information(trt.LayerInformationFormat.JSON).encode())
    return {"layers": plan["layers"]}


def cudart() -> Any:
    """libcudart of CUDA 12 or 13: where the loader looks, else where pip puts it."""
    packed = [str(path) for place in sys.path for path in Path(place or ".").glob("nvidia/*/lib/libcudart.so.1[23]")]
    for name in ("libcudart.so.13", "libcudart.so.12", "libcudart.so", *packed):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    raise WorkerError(ENVIRONMENT, "environment", "libcudart (CUDA 12 or 13) cannot be loaded")


class Engine:
    """A loaded engine with one input and one output: one context, one stream, one batch size, a CUDA graph on request."""

    def __init__(self, trt: Any, data: bytes, batch: int, graph: bool = False) -> None:
        self.lib, self.log, numpy = cudart(), make_log(trt), importlib.import_module("numpy")
        self.runtime = trt.Runtime(self.log)
        self.engine = self.runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise WorkerError(ENVIRONMENT, "load", f"the engine cannot be loaded: {last_error(self.log.lines)}")
        self.context = self.engine.create_execution_context()
        self.stream, self.graph = self.make("cudaStreamCreate"), ctypes.c_void_p()
        self.sides: dict[str, tuple[Any, ...]] = {}
        for name in [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]:
            shape = [batch, *list(self.engine.get_tensor_shape(name))[1:]]
            host = numpy.zeros(shape, trt.nptype(self.engine.get_tensor_dtype(name)))
            side = "input" if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "output"
            if side == "input" and not self.context.set_input_shape(name, shape):
                raise WorkerError(BAD_PLAN, "run", f"batch {batch} lies outside the profile of the engine")
            device = self.make("cudaMalloc", ctypes.c_size_t(host.nbytes))
            self.context.set_tensor_address(name, device.value)
            self.sides[side] = (host, device, ctypes.c_void_p(host.ctypes.data), ctypes.c_size_t(host.nbytes))
        self.marks = [self.make("cudaEventCreate") for _ in range(2)]
        self.launch(wait=True)  # what is lazy happens before a capture
        if graph:
            self.call("cudaStreamBeginCapture", self.stream, RELAXED)
            self.launch()
            self.call("cudaStreamEndCapture", self.stream, ctypes.byref(captured := ctypes.c_void_p()))
            self.graph = self.make("cudaGraphInstantiateWithFlags", captured, ctypes.c_ulonglong(0))

    def call(self, name: str, *values: Any) -> None:
        status = getattr(self.lib, name)(*values)
        if status != 0:
            raise WorkerError(ENVIRONMENT, "run", f"{name} returned cudaError {status}")

    def make(self, name: str, *values: Any, kind: Any = ctypes.c_void_p) -> Any:
        self.call(name, ctypes.byref(made := kind()), *values)
        return made

    def launch(self, wait: bool = False) -> None:
        if self.graph:
            self.call("cudaGraphLaunch", self.graph, self.stream)
        elif not self.context.execute_async_v3(self.stream.value):
            raise WorkerError(FAILED, "run", "execute_async_v3 returned False")
        if wait:
            self.call("cudaStreamSynchronize", self.stream)

    def device_ns(self) -> int:
        """One launch between two events of the device: the time of the GPU alone."""
        self.call("cudaEventRecord", self.marks[0], self.stream)
        self.launch()
        self.call("cudaEventRecord", self.marks[1], self.stream)
        self.call("cudaEventSynchronize", self.marks[1])
        return int(self.make("cudaEventElapsedTime", *self.marks, kind=ctypes.c_float).value * 1e6)

    def __call__(self, batch: Any) -> Any:
        (host, device, at, size), (result, back, there, length) = self.sides["input"], self.sides["output"]
        host[...] = batch
        self.call("cudaMemcpyAsync", device, at, size, TO_DEVICE, self.stream)
        self.launch()
        self.call("cudaMemcpyAsync", there, back, length, TO_HOST, self.stream)
        self.call("cudaStreamSynchronize", self.stream)
        return result.copy()


def verify(trt: Any, plan: dict[str, Any], base: Path) -> dict[str, Any]:
    numpy, rule = importlib.import_module("numpy"), plan["golden"]
    with numpy.load(base / rule["file"], allow_pickle=False) as record:
        images, wanted = record["inputs"], record["logits"].astype("float64")
    loaded = Engine(trt, (base / plan["output"]).read_bytes(), 1)
    found = numpy.concatenate([loaded(image[None]) for image in images]).astype("float64")
    delta = float(numpy.abs(found - wanted).max()) / (float(numpy.ptp(wanted, axis=1).mean()) or 1.0)
    agreement = float((found.argmax(1) == wanted.argmax(1)).mean())
    facts = {"images": len(images), "delta_over_s": delta, "agreement": agreement, "logits": found.tolist()}
    if not numpy.isfinite(found).all() or delta > rule["delta_over_s"] or agreement < rule["agreement"]:
        raise WorkerError(FAILED, "run", f"golden outputs differ: delta over s {delta:.3g}, agreement {agreement:.3f}", [facts])
    return facts


def bench(trt: Any, plan: dict[str, Any], base: Path) -> dict[str, Any]:
    """Nanoseconds per query: device (events around the launch), host (launch to end), end to end (with both copies)."""
    numpy, how = importlib.import_module("numpy"), plan["bench"]
    ready = Engine(trt, (base / plan["output"]).read_bytes(), how["batch"], how["graph"])
    images = numpy.random.default_rng(0).integers(0, 256, (64, *ready.sides["input"][0].shape), dtype="uint8")
    works: dict[str, Any] = {"device": lambda _: ready.device_ns(), "host": lambda _: ready.launch(True), "end_to_end": ready}
    rows: dict[str, Any] = {kind: [] for kind in works}
    for kind, work in works.items():
        first = time.monotonic()
        while time.monotonic() - first < how["warmup_s"] + how["seconds"] or len(rows[kind]) < how["queries"]:
            started = time.perf_counter_ns()
            given = work(images[len(rows[kind]) % 64])
            if time.monotonic() - first >= how["warmup_s"]:
                rows[kind].append(given if kind == "device" else time.perf_counter_ns() - started)
    return {"batch": how["batch"], "cuda_graph": how["graph"], "samples_ns": rows}


def write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a plan, in which every key stands once (as octc.core.files.parse_json, of which this file may not know)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"a key that stands twice: {next(name for name in names if names.count(name) > 1)}")
    return found


def no_number(word: str) -> Any:
    raise ValueError(f"{word} where a plan has a number or null")


COMMANDS = {"build": build, "inspect": inspect, "verify": verify, "bench": bench, "probe": lambda *_: {}}


def main(given: list[str]) -> int:
    """Run one command; the exit code."""
    if len(given) != 2 or given[0] not in COMMANDS:
        sys.stderr.write(f"use: trt_worker.py {'|'.join(COMMANDS)} PLAN.json\n")
        return BAD_PLAN
    path = Path(given[1]).resolve()
    to = path.with_suffix(".result.json")
    result: dict[str, Any] = {"schema": "octc.trt-result/1", "verb": given[0], "ok": True, "exit": OK, "error": None}
    try:
        plan = json.loads(path.read_text("utf-8"), object_pairs_hook=once, parse_constant=no_number)
        one = next((plan[kind] for kind in ("strong", "weak") if kind in plan), plan)
        name, to = one["module"], path.parent / one["result"]
        try:
            trt = importlib.import_module(name)
        except Exception as error:  # a missing library is OSError or ImportError, a broken binding anything
            raise WorkerError(ENVIRONMENT, "environment", f"{name} cannot be imported: {error}") from None
        result["environment"] = {"module": trt.__name__, "version": trt.__version__, "python": platform.python_version()}
        plan = choose(plan, trt)
        to = path.parent / plan["result"]
        result.update(COMMANDS[given[0]](trt, plan, path.parent))
    except (WorkerError, KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        known = error if isinstance(error, WorkerError) else WorkerError(BAD_PLAN, "plan", repr(error))
        result.update(ok=False, exit=known.code, error={"stage": known.stage, "text": str(known), "details": known.details})
    sys.stderr.write(f"{result['error']}\n" if result["error"] else "")
    write(to, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    return int(result["exit"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
