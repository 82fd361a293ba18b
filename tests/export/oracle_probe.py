"""Runs under a Python with tensorrt_rtx: compiles each ONNX file in a child of its own, as some crash the process.

python oracle_probe.py FOLDER     writes FOLDER/verdicts.json: file name -> {"outcome", "error", "int8", "float"}
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from pathlib import Path

import tensorrt_rtx as trt

SECONDS, LONGEST = 60, 600  # of the processor, and of the clock: a busy machine is no hanging compiler
COMPUTE = ("correlation", "gemm", "runtime_fusion", "deconv")
# "CastMulCastMulCastFc": the codes are multiplied by their scales inside the kernel, and the product is one of floats
DEQUANTISES = re.compile(r"Name: \w*Cast\w*(Fc|Gemm|Conv)")


class Log(trt.ILogger):
    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[tuple[str, str]] = []

    def log(self, severity: object, message: str) -> None:
        self.lines.append((str(severity).rsplit(".", maxsplit=1)[-1], message))


def compile_file(path: Path) -> dict[str, object]:
    """Outcome reject, fail or built; the nodes whose kernel reads Int8, and all nodes that a kernel was made for."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        return {"outcome": "reject", "error": parser.get_error(0).desc() if parser.num_errors else ""}
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for place in range(network.num_inputs):
        tensor = network.get_input(place)
        low, high = ([given if size < 0 else size for size in tensor.shape] for given in (8, 32))
        profile.set_shape(tensor.name, low, low, high)
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        errors = [text for name, text in log.lines if "ERROR" in name]
        return {"outcome": "fail", "error": errors[-1] if errors else ""}
    dump = next((text for name, text in reversed(log.lines) if text.startswith("Layers:")), "")
    int8, seen = set(), set()
    for line in dump.splitlines():
        nodes = re.findall(r"\[ONNX Layer: ([^\]]*)\]", line)
        inputs = line.partition("Inputs:")[2].partition("Constants:")[0].partition("Outputs:")[0]
        kind = re.search(r"LayerType: (\w+)", line)
        seen.update(nodes)
        if kind and kind[1] in COMPUTE and "Datatype: Int8" in inputs and not DEQUANTISES.match(line):
            int8.update(nodes)
    return {"outcome": "built", "int8": sorted(int8), "seen": sorted(seen)}


def in_child(path: Path) -> dict[str, object]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(LONGEST)
        os.close(reader)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        with os.fdopen(writer, "w") as stream:
            json.dump(compile_file(path), stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if status == 0 and text else {"outcome": "crash", "error": f"status {status}"}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    verdicts = {path.name: in_child(path) for path in sorted(folder.glob("*.onnx"))}
    (folder / "verdicts.json").write_text(json.dumps(verdicts, indent=1))
