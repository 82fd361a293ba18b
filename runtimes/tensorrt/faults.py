"""What pip, Python, the loader, the driver and TensorRT say when an installation or a build fails: what it means, and a hint.

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
    """One kind of broken installation, or of build that failed.

    Attributes:
        patterns: searched in what was said. words: what it means; hint: what to do.
        brings: faults that follow from this one: they are not told beside it.
        line: where it was found, from 1; 0 in the table. found: what the group `name` of a pattern was (an operator, a node).
    """

    id: str
    patterns: tuple[str, ...]
    words: str
    hint: str
    brings: tuple[str, ...] = ()
    line: int = 0
    found: str = ""


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
        ("metadata", "no wheel"),
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
        "cut short",
        (
            "file too short",
            "ELF load command past end of file",
            "cannot read file data",
            r"(libnv|tensorrt)\S*: (ELF file data encoding not|section header)",
        ),
        "a library is cut short: its download or copy stopped half way, or the disk was full",
        "remove the package and install it again (df -h: is there room?); " + APT,
        ("processor", "libraries", "two versions", "start"),
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
        ("driver", "start"),
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
        ("driver", "start"),
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
        "zero-point",
        (
            r"[Nn]on-?zero zero[- ]?point",
            "shiftIsAllZeros",
            r"[Oo]nly (supports? )?symmetric quanti[sz]ation",
            r"zero[- _]?[Pp]oint.{0,60}(must be|should be|all) (0|zero)",
        ),
        "a Q or DQ of the file has a zero-point other than 0: TensorRT is symmetric",
        "octc lint FILE --fix where it is uint8 with 128; else calibrate symmetrically (octc explain E01)",
    ),
    Fault(
        "FP8",
        (
            r"[Ff][Pp]8.{0,100}(not support|unsupported|requires?\b|no hardware|compute capability|\bSM\b|\bsm_?\d)",
            r"(not support|unsupported|requires? SM|SM ?8\.?\d).{0,60}\b[Ff][Pp]8",
        ),
        "this GPU has no FP8: compute capability 8.9 and later have it, an Orin is 8.7, an A100 8.0",
        "octc export --int8 --target tensorrt, or --fp16",
        ("no implementation",),
    ),
    Fault(
        "operator",
        (
            r"could not find plugin:? *(?P<name>\w+)",
            r"No importer registered for op: *(?P<name>\w+)",
            r"Plugin not found.{0,80}op(?:erator)?:? *(?P<name>\w+)?",
            r"(?:UNSUPPORTED_NODE|Unsupported operator|unsupported op(?:erator)?)\W*(?P<name>[A-Z]\w+)?",
        ),
        "this TensorRT has no such operator or plug-in (LayerNormalization: none before 8.6, and not every build of 8.6)",
        "TensorRT 10 (JetPack 6.1 or later); else opset 16, in which norms are written out (octc lint FILE names the rest)",
    ),
    Fault(
        "no profile",
        (
            r"dynamic or shape inputs, but no optimization profile",
            r"[Nn]o optimization profile has been defined",
            r"(min|opt|max)Shapes.{0,60}(not provided|missing)",
        ),
        "the file has an open axis, and nobody said how large it may be",
        "the command lines of BUILD.txt, with --minShapes, --optShapes and --maxShapes",
    ),
    Fault(
        "weights elsewhere",
        (
            r"(Failed to open|[Cc]ould not open|cannot open|No such file).{0,120}\.(data|onnx_data|onnx\.data)\b",
            r"[Ee]xternal (data|weights).{0,80}(not found|missing|[Ff]ailed)",
        ),
        "the file keeps its weights in a file of its own, which was not copied",
        "copy FILE.onnx.data beside FILE.onnx, or export as one file",
    ),
    Fault(
        "workspace",
        (
            r"[Ii]nsufficient (workspace|memory on requested size)",
            r"[Tt]actic.{0,60}[Rr]equested.{0,40}[Aa]vailable",
        ),
        "a kernel wanted more workspace than the build may take",
        "a larger workspace_mb in build-*.json (--memPoolSize=workspace:N of trtexec), and nothing else on the GPU",
        ("no implementation",),
    ),
    Fault(
        "memory",
        (
            "[Oo]ut of memory",
            "OutOfMemory",
            "cudaErrorMemoryAllocation",
            "std::bad_alloc",
            r"oom-kill|^\W*Killed\W*$|signal 9\b|SIGKILL",
        ),
        "memory ran out",
        "close what uses the GPU, or lower workspace_mb in build-*.json",
        ("no implementation",),
    ),
    Fault(
        "no implementation",
        (r"Could not find any implementation for node *(?P<name>[^\s{.(\"]+)?",),
        "no kernel of this TensorRT runs a part of the network as the file wants it",
        "octc verify DIR --target tensorrt --on-device --allow-fallback (named layers go to float); octc lint FILE says why",
    ),
    Fault(
        "timed out",
        (r"(build|builder|trtexec).{0,40}(timed out|timeout expired)",),
        "the build took longer than it may",
        "opt_level 2 in build-*.json builds quicker; close what uses the GPU",
    ),
    Fault(
        "DLA",
        (r"\bDLA\b.{0,80}(not support|cannot|fall ?back|unsupported|fails?\b)", "Default DLA is enabled but"),
        "DLA was asked for: it has no explicit INT8, and parts of the network go back to the GPU",
        "leave --useDLACore out",
    ),
    Fault(
        "typing",
        (
            r"[Ss]trongly.?[Tt]yped.{0,100}(flag|kINT8|kFP16|INT8|FP16|not allowed|invalid|cannot)",
            r"(kINT8|kFP16|--int8|--fp16).{0,100}[Ss]trongly.?[Tt]yped",
        ),
        "precisions were asked for in a strongly typed build, in which the file alone decides",
        "model.int8fp16.onnx without --int8 and --fp16, as BUILD.txt has it",
    ),
    Fault(
        "no scales",
        (r"[Mm]issing scale and zero-point for tensor", r"[Cc]alibrat\w+.{0,60}(failure|failed|no scaling factors)"),
        "INT8 was asked for of a file without Q/DQ, or with half of them: those layers run in float",
        "octc export --int8 writes explicit Q/DQ; leave --calib out",
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
    Fault(
        "old TensorRT",
        (r"TensorRT[ -](version:? ?)?v?8\.\d", r"\[TensorRT v8\d{3}\]", r"TensorRT-8\.\d"),
        "this is TensorRT 8: octc builds with 10.0 and later",
        "JetPack 6.1 or later, or TensorRT 10 or later",
    ),
)


def diagnose_all(text: str) -> list[Fault]:
    """Every kind of failure that a text tells of, each once, with its line: the particular before the general.

    What follows from another one that is there is left out.
    """
    found: list[Fault] = []
    for fault in FAULTS:
        hits = [hit for pattern in fault.patterns if (hit := re.search(pattern, text, re.MULTILINE)) is not None]
        if not hits or any(fault.id in other.brings for other in found):
            continue
        first = min(hits, key=re.Match.start)
        name = next((hit["name"] for hit in hits if hit.groupdict().get("name")), "")
        command = COMMAND.search(text) if fault.id in ("stubs", "metadata") else None
        line = text.count("\n", 0, first.start()) + 1
        found.append(replace(fault, line=line, found=name[:80], hint=command[1] if command else fault.hint))
    return found


def diagnose(text: str) -> Fault | None:
    """The kind of failure that a text tells of: a pip log, a traceback, TensorRT's own words. None: unknown."""
    return next(iter(diagnose_all(text)), None)


def explained(error: OctcError, text: str) -> OctcError:
    """The same error with words and mend of the fault that `text` shows, if it shows one."""
    fault = diagnose(text)
    if fault is None:
        return error
    return OctcError(error.code, f"{error.message} ({fault.words})", hint=fault.hint, place=error.place, why=error.why)
