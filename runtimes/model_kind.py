"""Is a file a model, and of what kind? Its first bytes decide, and its ending only where they say nothing."""

from __future__ import annotations

import mmap
import zipfile
from pathlib import Path

from octc.core.protobuf import fields

PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# endings that only models have
FORMATS = {
    ".onnx": "ONNX", ".engine": "TensorRT", ".plan": "TensorRT", ".trt": "TensorRT", ".pt": "PyTorch", ".pth": "PyTorch",
    ".ckpt": "PyTorch", ".torchscript": "PyTorch", ".pte": "ExecuTorch", ".safetensors": "safetensors",
    ".tflite": "TensorFlow Lite", ".ort": "ONNX Runtime", ".keras": "Keras", ".mlmodel": "Core ML",
}  # fmt: skip
# fields of onnx.ModelProto: the graph is 7; a file that has others than these is none
ONNX_GRAPH, ONNX_FIELDS = 7, {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
MOST_HEADER = 100 << 20  # bytes of JSON that safetensors allows


def is_picture(path: Path) -> bool:
    """Whether a file begins as an image of an accepted format does; False where it cannot be read."""
    return _head(path).startswith(PICTURES)


def model_kind(path: Path) -> str | None:
    """The format of a model file, for example "ONNX"; None for a picture, for a folder, and for what is no model."""
    if not path.is_file() or is_picture(path):
        return None
    return _by_content(path, _head(path)) or FORMATS.get(path.suffix.lower())


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(4096)
    except OSError:
        return b""


def _by_content(path: Path, head: bytes) -> str | None:
    size = path.stat().st_size
    marks = {b"TFL3": "TensorFlow Lite", b"ORTM": "ONNX Runtime", b"ET12": "ExecuTorch"}
    if head[4:8] in marks:
        return marks[head[4:8]]
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= min(size - 8, MOST_HEADER):
        return "safetensors"
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"<?xml", b"<net")) and b"<net " in head:
        return "OpenVINO"
    if head.startswith(b"PK\x03\x04"):
        return _of_zip(path)
    return "ONNX" if head and _is_onnx(path) else None


def _of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    return "PyTorch" if any(name.endswith("data.pkl") for name in names) else None


def _is_onnx(path: Path) -> bool:
    """The top level of a ModelProto; what its fields hold is passed over."""
    graphs = 0
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            for number, value in fields(view):
                if number not in ONNX_FIELDS or (number == ONNX_GRAPH and not isinstance(value, memoryview)):
                    return False
                graphs += number == ONNX_GRAPH
                if isinstance(value, memoryview):
                    value.release()
    except (OSError, ValueError):
        return False
    return graphs > 0
