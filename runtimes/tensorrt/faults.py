"""What pip, Python, the loader, the driver and TensorRT say when an installation is broken: what it means, and a hint.

Text only. The rows come from NVIDIA's own messages, from the bindings installed without their libraries (reproduced) and from
public reports of users; the first row that matches is taken, so the particular stands before the general.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from octc.core.errors import OctcError

REBUILD = "octc export --from-artifact DIR --target tensorrt --force   (on this machine)"
APT = "on a Jetson: sudo apt install nvidia-jetpack; elsewhere NVIDIA's TensorRT container, or its own package index"
# the command stands in the message of NVIDIA's download stubs; it is repeated, not invented
COMMAND = re.compile(r"^\W*((?:python\S* -m )?pip3? install .*index-url.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Fault:
    """One kind of broken installation. patterns: searched in what was said; words: what it means; mend: what to do."""

    id: str
    patterns: tuple[str, ...]
    words: str
    hint: str


FAULTS = (
    Fault(
        "stubs",
        (
            "wheel_stub",
            "nvidia_stub",
            "InstallFailedError",
            r"[Tt]he installation of tensorrt\S* .*failed",
        ),
        "the public package index has download stubs of TensorRT's libraries only, and the download failed",
        APT,
    ),
    Fault(
        "no wheel",
        (
            "(No matching distribution|Could not find a version).*tensorrt",
            r"tensorrt\S* is not a supported wheel",
        ),
        "there is no wheel of this TensorRT for this Python and processor (for JetPack 6 there is none at all)",
        "OCTC_TENSORRT_PYTHON=/usr/bin/python3 octc doctor --target tensorrt   (on a Jetson), else another Python",
    ),
    Fault(
        "metadata",
        (
            "metadata-generation-failed",
            "Failed (to build|building wheel).*tensorrt",
        ),
        "pip could not build one of TensorRT's packages: its libraries come from NVIDIA's own package index",
        APT,
    ),
    Fault(
        "parts",
        (r"No module named '?tensorrt_(libs|bindings|cu\d+|lean|dispatch)",),
        "TensorRT is installed in part: pip stopped half way",
        "pip uninstall tensorrt, then install it again; " + APT,
    ),
    Fault(
        "absent",
        (r"No module named '?(tensorrt|tensorrt_rtx)'?\s*$",),
        "it has no TensorRT",
        APT,
    ),
    Fault(
        "no driver",
        (r"libcuda\.so",),
        "the driver's library is not here: no driver, or a container that was started without the GPU",
        "install the NVIDIA driver; in a container: docker run --gpus all (on a Jetson --runtime nvidia)",
    ),
    Fault(
        "builder",
        ("libnvinfer_builder_resource",),
        "the library that builds engines is not here: a runtime alone, or one for other GPUs",
        APT,
    ),
    Fault(
        "libraries",
        (r"(libnvinfer|libnvonnxparser)\S*: cannot open shared object",),
        "the Python bindings are installed, TensorRT's libraries are not",
        APT,
    ),
    Fault(
        "CUDA libraries",
        (
            r"(libcudart|libcublas|libcudnn|libnvrtc|libcufft)\S*: cannot open",
            r"libcudart \(CUDA 12 or 13\) cannot be loaded",
        ),
        "a library of CUDA is not here",
        "pip install nvidia-cuda-runtime-cu12 (or -cu13, as TensorRT wants it), or install the CUDA toolkit",
    ),
    Fault(
        "processor",
        (
            "wrong ELF class",
            "invalid ELF header",
            "cannot execute binary file",
            "Exec format error",
        ),
        "it was built for another processor",
        "remove it and install the package for this machine; " + APT,
    ),
    Fault(
        "C library",
        (r"version [`']?(GLIBC|GLIBCXX|CXXABI)_\S+ not found",),
        "TensorRT wants a newer system than this one",
        "NVIDIA's TensorRT container, or an older TensorRT (10.0 or later)",
    ),
    Fault(
        "thread storage",
        ("static TLS block",),
        "libraries were loaded in an order that the loader cannot serve",
        "export LD_PRELOAD=PATH   with the path of the library that the message names",
    ),
    Fault(
        "two versions",
        (
            "undefined symbol",
            r"version `?libnvinfer\S* not found",
            "symbol lookup error",
        ),
        "bindings and libraries are of two versions: TensorRT is installed twice",
        "pip list and apt list --installed show both: remove one",
    ),
    Fault(
        "numpy",
        (
            "_ARRAY_API",
            "compiled using NumPy 1",
            "module 'numpy' has no attribute",
            r"numpy\.core\.multiarray failed",
        ),
        "this numpy is too new for this TensorRT",
        "pip install 'numpy<2'   (for the Python that has TensorRT)",
    ),
    Fault(
        "no numpy",
        ("No module named '?numpy",),
        "TensorRT is here, numpy is not",
        "pip install numpy   (for the Python that has TensorRT)",
    ),
    Fault(
        "permission",
        (
            r"NvRmMem\w* failed.*[Pp]ermission denied",
            "[Pp]ermission denied.*(/dev/nv|nvhost|nvmap)",
            r"(/dev/nv|nvhost|nvmap)\S*.*[Pp]ermission denied",
        ),
        "this user may not use the GPU",
        "sudo usermod -aG video,render $USER, then log in again",
    ),
    Fault(
        "old driver",
        (
            r"CUDA initiali[sz]ation failure with error:? 35\b",
            "driver version is insufficient",
            "cudaErrorInsufficientDriver",
            r"cudaError:? ?35\b",
        ),
        "the driver is too old for this CUDA, or there is none",
        "nvidia-smi shows the newest CUDA of the driver: update the driver, or take TensorRT for that CUDA",
    ),
    Fault(
        "no device",
        (
            r"CUDA initiali[sz]ation failure with error:? 100\b",
            "no CUDA-capable device",
            "cudaErrorNoDevice",
            "No devices were found",
            r"cudaError:? ?100\b",
        ),
        "CUDA finds no GPU",
        "nvidia-smi; CUDA_VISIBLE_DEVICES must not be empty; in a container: docker run --gpus all",
    ),
    Fault(
        "driver",
        (
            "CUDA initiali[sz]ation failure",
            "Driver/library version mismatch",
            "couldn't communicate with the NVIDIA driver",
            r"cudaError:? ?(8\d\d|999)\b",
        ),
        "the driver does not answer",
        "restart this machine (a driver was updated while it was in use); nvidia-smi must work first",
    ),
    Fault(
        "GPU",
        (
            r"Target GPU SM \d+ is not supported",
            "Unsupported SM",
            "SM version not supported",
        ),
        "this GPU is too old or too new for this TensorRT",
        "another version of TensorRT: its release notes list the GPUs",
    ),
    Fault(
        "memory",
        (
            "[Oo]ut of memory",
            "OutOfMemory",
            "cudaErrorMemoryAllocation",
            "std::bad_alloc",
        ),
        "memory ran out",
        "close what uses the GPU, or lower workspace_mb in build-*.json",
    ),
    Fault(
        "other engine",
        (
            "incompatible device",
            "not compatible with this version of TensorRT",
            "expecting (library|compute) version",
            "[Vv]ersion tag does not match",
            "magicTag",
            "plan file does not match",
        ),
        "the engine was built for another GPU or version of TensorRT",
        REBUILD,
    ),
    Fault(
        "old script",
        (
            r"has no attribute '(max_workspace_size|EXPLICIT_BATCH|build_engine|platform_has_fast_\w+)'",
            "has no attribute '(FP16|INT8|execute_async_v2|num_bindings)'",
        ),
        "a script was written for another version of TensorRT",
        "python3 trt_worker.py build build-int8.json   (it knows 10.0 to 11)",
    ),
    Fault(
        "shadowed",
        (
            "module '?tensorrt'? has no attribute '?(__version__|Builder|Logger|OnnxParser|Runtime)",
            "partially initialized module '?tensorrt",
        ),
        "something else is called tensorrt: a folder or file of yours, or the lean or dispatch runtime",
        "rename it; python3 -c 'import tensorrt; print(tensorrt)' shows which one is found",
    ),
    Fault(
        "start",
        ("factory function returned nullptr",),
        "TensorRT cannot start on this GPU",
        "nvidia-smi must work first; then the messages above this one",
    ),
    Fault(
        "no trtexec",
        ("trtexec: (command )?not found",),
        "trtexec is not here",
        "on a Jetson: sudo apt install libnvinfer-bin (it lies in /usr/src/tensorrt/bin)",
    ),
)


def diagnose(text: str) -> Fault | None:
    """The kind of broken installation that a text tells of: a pip log, a traceback, TensorRT's own words. None: unknown."""
    for fault in FAULTS:
        if any(re.search(pattern, text, re.MULTILINE) for pattern in fault.patterns):
            command = COMMAND.search(text) if fault.id in ("stubs", "metadata") else None
            return replace(fault, hint=command[1]) if command else fault
    return None


def explained(error: OctcError, text: str) -> OctcError:
    """The same error with words and mend of the fault that `text` shows, if it shows one."""
    fault = diagnose(text)
    if fault is None:
        return error
    return OctcError(error.code, f"{error.message} ({fault.words})", hint=fault.hint, place=error.place, why=error.why)
