#!/usr/bin/env bash
# MNN 3.6.1: `mnnconvert` runs `pip install` by itself, for a client that reports the conversion.
#
# Guess (an engineer's; that it misses was seen by accident): a converter reads one file and writes another, and changes nothing in
# the Python that it runs in, as the converters of OpenVINO, LiteRT and TensorRT.
#
# Seen on 2026-12-01: the command, and `import MNN.tools.mnnconvert` or `mnnquant`, call "pip install -U aliyun-log-python-sdk" of
# whatever pip is first in PATH (not the one of its own environment). Here that was the system's Python: ten packages came, among
# them another protobuf and typing-extensions in place of an older one. By the source, the client then sends the machine's
# id (/etc/machine-id), the arguments and the sizes of both files to the maker. No question and no switch. Where pip fails the
# conversion goes on without the report. So convert in a container without a network, or call the module `_tools` of the wheel
# directly, which the wrapper calls too.
#
# The pip of this script only writes down how it was called, and the proxy variables point nowhere: nothing is installed or sent.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 onnx==1.23.2 protobuf==6.33.6 MNN==3.6.1
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import onnx
from onnx import TensorProto, helper

info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "relu.onnx")
PY
mkdir stub
printf '#!/bin/sh\necho "$@" >> "%s/called"\nexit 1\n' "$dir" > stub/pip
chmod +x stub/pip
HOME="$dir" PATH="$dir/stub:$PATH" http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 \
    venv/bin/mnnconvert -f ONNX --modelFile relu.onnx --MNNModel relu.mnn --bizCode b > log 2>&1
test -s relu.mnn
echo "pip was called with: $(cat called)"
grep -qx 'install -U aliyun-log-python-sdk' called || { echo "the behaviour changed"; exit 1; }
