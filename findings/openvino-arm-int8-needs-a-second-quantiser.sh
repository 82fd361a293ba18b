#!/usr/bin/env bash
# OpenVINO 2026.4.1 on Arm: a convolution of int8 codes behind one of uint8 codes is computed in float16, whatever precision is
# asked for, or does not compile; with a second FakeQuantize of the same grid between them both are computed in INT8.
#
# Guess, written down before the run: convolutions between FakeQuantize, as NNCF writes them (uint8 behind a ReLU, int8 elsewhere),
# run in INT8 on Arm as they do on x86, or in float32 where there is no kernel: float32 is the precision that is asked for.
#
# Seen on 2026-12-01 (qemu-user 10.0.2): on Neoverse-N1 the second convolution has the kernel "ref_any_f16"; on Cortex-A72, which
# has no float16 arithmetic, compile_model ends with "object is not initialized". With the quantiser between them twice, the
# second time with a scale 6e-5 larger (no value changes), both are "acl_i8" on both cores; with the very same scale OpenVINO
# takes the second one away. Arm's kernels give codes of the type that they take: the first convolution gives uint8 with
# zero-point 128 then, and one that reads codes with a zero-point has no INT8 kernel (src/plugins/intel_cpu/src/transformations/
# cpu_opset/arm/pass/: align_unsupported_lp_conv_fq_precision.cpp, fallback_unsupported_lp_conv_to_fp16.cpp).
#
# On x86-64 this takes the emulators of benchmarks/arm64_root.sh (Debian).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/run.py" <<'EOF2'
import sys
import numpy as np
import openvino as ov
from openvino import opset13 as op

rng = np.random.default_rng(0)


def fake_quantize(x, low, high):
    ends = [op.constant(np.float32([one])) for one in (low, high, low, high)]
    return op.fake_quantize(x, *ends, 256)


def convolution(x, outputs, inputs):
    codes = op.convert(op.constant(rng.integers(-63, 64, (outputs, inputs, 1, 1)).astype(np.int8)), "f32")
    weight = op.multiply(codes, op.constant(np.full((outputs, 1, 1, 1), 0.004, np.float32)))
    y = op.convolution(x, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    return op.add(y, op.constant(rng.normal(0, 0.5, (1, outputs, 1, 1)).astype(np.float32)))


def network(times):
    """uint8 codes, a convolution, a signed quantiser so many times (its scale), a convolution."""
    x = op.parameter([1, 16, 12, 12], np.float32)
    y = convolution(fake_quantize(x, 0, 3), 16, 16)
    for factor in times:
        y = fake_quantize(y, -128 / 32 * factor, 127 / 32 * factor)
    return ov.Model([fake_quantize(convolution(y, 24, 16), 0, 6)], [x])


core = ov.Core()
for times in ([1], [1, 1], [1, 1 + 2**-14]):
    try:
        compiled = core.compile_model(network(times), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
        found = [str(i["primitiveType"].astype(str)).lower() for i in infos if i["layerType"].astype(str) == "Convolution"]
    except RuntimeError as error:
        found = ["object is not initialized" if "object is not initialized" in str(error) else str(error)]
    print(sys.argv[1], times, *found)
    if times[-1] > 1:
        assert found == ["acl_i8", "acl_i8"], "the behaviour changed"
    else:
        other = ["object is not initialized"] if sys.argv[1] == "cortex-a72" else ["acl_i8", "ref_any_f16"]
        assert found == other, "the behaviour changed"
EOF2
farm=${EMULATION_FOLDER:-$dir/farm} # emulators and an arm64 Python; the packages are those that are named here
sh "$here/benchmarks/arm64_root.sh" "$farm" "${EXTRAS:-ort,openvino,litert}"
python=$(ls -d "$farm"/arm64/usr/bin/python3.[0-9]*[0-9] | head -n 1)
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/packages" --implementation cp --only-binary=:all: \
  --python-version "${python##*python}" --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
  --platform manylinux_2_31_aarch64 --platform manylinux_2_34_aarch64 --platform manylinux_2_35_aarch64 \
  --platform manylinux_2_17_aarch64 openvino==2026.4.1 numpy==2.2.6
for core in cortex-a72 neoverse-n1; do
  PYTHONPATH="$dir/packages" "$farm/bin/qemu-aarch64" -L "$farm/arm64" -cpu "$core" "$python" "$dir/run.py" "$core"
done
