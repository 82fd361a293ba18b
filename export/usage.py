"""USE.md of an artifact: how to run its file without octc, in ten lines of Python for its own engine."""

from __future__ import annotations

from pathlib import Path

from octc.core.files import write_bytes
from octc.runtimes.graph_input import read_graph_input
from octc.stats.multilabel import thresholds_of
from octc.store.artifacts import USAGE, Artifact

INSTALL = {
    "onnx": "numpy pillow onnxruntime", "openvino": "numpy pillow openvino", "torch": "numpy pillow torch timm safetensors",
    "tensorrt": "numpy pillow onnxruntime", "litert": "numpy pillow ai-edge-litert",
}  # fmt: skip
RESIZE = " A resize without antialiasing (OpenCV, torch by default) changes the answers."
RESEARCH = (
    "Software for research. Not a medical device. octc also checks the file, the machine and whether an image is of the kind "
    "that the network knows; these lines do not."
)
SOFTMAX = ("e = np.exp(logits - logits.max())", "probabilities = e / e.sum()")
SIGMOID = ("probabilities = 1 / (1 + np.exp(-logits))",)


def write_usage(folder: Path, artifact: Artifact) -> None:
    """Write USE.md into an artifact folder that is being made; its model file lies there already.

    Raises:
        OctcError: E502 the model file does not state its input.
    """
    write_bytes(folder / USAGE, usage_text(folder, artifact).encode())


def usage_text(folder: Path, artifact: Artifact) -> str:
    """The text of USE.md, with one block of Python that prints the probability of every class of one image."""
    pre, found = artifact.preprocess, read_graph_input(folder, artifact)
    last = artifact.target == "litert"
    sides = (pre.size, pre.size, pre.channels) if last else (pre.channels, pre.size, pre.size)
    shape = f"[N, {', '.join(map(str, sides))}]"
    fed = "the network below, float32, normalised as shown" if found is None else f"`{found.name}`, {found.type} {shape}"
    several = artifact.task == "multilabel"
    thresholds = thresholds_of(artifact.details, len(artifact.classes))
    answer = (
        "a sigmoid gives the probability of each class; a class is present from its threshold on: "
        + ", ".join(f"{name} {at:g}" for name, at in zip(artifact.classes, thresholds, strict=True))
        if several
        else "a softmax gives the probability of each class"
    )
    mode = "grey (mode L)" if pre.channels == 1 else "RGB"
    values = "" if found is None else " Values are 0 to 255, not normalised: the graph normalises."
    lines = [
        f"# {artifact.name} without octc",
        "",
        f"- Feed: {fed}. N is the number of images.{values}",
        f"- Image: {mode}, resized to {pre.size} x {pre.size} with Pillow's antialiased {pre.resize} `Image.resize`.{RESIZE}",
        *([_range(artifact)] if pre.value_range else []),
        *([_clahe(artifact)] if pre.clahe else []),
        f"- Result: logits, float32 [N, {len(artifact.classes)}]; {answer}.",
        f"- Classes, in this order: {', '.join(artifact.classes)}.",
        *(
            ["- The TensorRT engine is built on its device (BUILD.txt) and takes and gives the same; below its ONNX file runs."]
            if artifact.target == "tensorrt"
            else []
        ),
        f"- {RESEARCH}",
        "",
        f"`pip install {INSTALL[artifact.target]}`, then, in this folder:",
        "",
        "```python",
        *_code(artifact),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _range(artifact: Artifact) -> str:
    low, high = artifact.preprocess.value_range or (0.0, 0.0)
    kinds = "every grey or RGB image" if high <= 255 else "grey images of more than 8 bits (8-bit images as they are)"
    return f"- Stored values: of {kinds}, {low:.10g} becomes 0 and {high:.10g} becomes 255; what lies outside is cut off."


def _opened(artifact: Artifact, mode: str, here: str) -> list[str]:
    """Lines from a file to `image`: by the value range that the network was trained with, else deep grey from the whole of its
    scale. here: the comment of CLAHE."""
    deep, stretch = 'image.mode in ("I", "F") or image.mode.startswith("I;16")', artifact.preprocess.value_range
    if stretch is None:
        x = 'np.asarray(image).astype(float) * (255 if image.mode == "F" else 255 / 65535)'
        shallow = ""
    else:
        low, high = stretch
        x = f"(np.asarray(image).astype(float) - {low:.10g}) * 255 / {high - low:.10g}"
        shallow = ' or image.mode in ("L", "RGB")' if high <= 255 else ""
    return [
        'image = ImageOps.exif_transpose(Image.open(open(sys.argv[1], "rb")))  # a path: a TIFF on its side is misread',
        f"if {deep}{shallow}:",
        f"    x = {x}",
        "    image = Image.fromarray(np.rint(x.clip(0, 255)).astype(np.uint8))",
        f'image = image.convert("{mode}"){here}',
    ]


def _clahe(artifact: Artifact) -> str:
    pre = artifact.preprocess
    grid = f"{pre.clahe_grid[0]} x {pre.clahe_grid[1]} tiles"
    return (
        f"- Before the resize the contrast is equalised (CLAHE, clip {pre.clahe:g}, {grid}): apply it where the comment stands."
    )


def _code(artifact: Artifact) -> list[str]:
    pre, file = artifact.preprocess, artifact.main_file
    mode = "L" if pre.channels == 1 else "RGB"
    resample = f"Image.Resampling.{pre.resize.upper()}"
    axes = "[None, None]" if pre.channels == 1 else ".transpose(2, 0, 1)[None]"
    here = "  # CLAHE first, see above" if pre.clahe else ""
    return [
        "import sys",
        "import numpy as np",
        "from PIL import Image, ImageOps",
        f"classes = {list(artifact.classes)!r}",
        *_opened(artifact, mode, here),
        f"x = np.ascontiguousarray(np.asarray(image.resize(({pre.size}, {pre.size}), {resample})){axes})",
        *_engine(artifact, file),
        *(SIGMOID if artifact.task == "multilabel" else SOFTMAX),
        "for name, p in zip(classes, probabilities):",
        '    print(f"{name}: {p:.6f}")',
    ]


def _engine(artifact: Artifact, file: str) -> list[str]:
    """Lines from `x`, uint8 [1, channels, size, size], to `logits`, float64 [classes]."""
    if artifact.target == "openvino":
        return [
            "import openvino as ov",
            f'network = ov.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})',
            "logits = network(x)[0][0].astype(float)",
        ]
    if artifact.target == "litert":
        return [
            "from ai_edge_litert.interpreter import Interpreter",
            f'network = Interpreter("{file}", num_threads=1)',
            "network.allocate_tensors()",
            'network.set_tensor(network.get_input_details()[0]["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))',
            "network.invoke()",
            'logits = network.get_tensor(network.get_output_details()[0]["index"])[0].astype(float)',
        ]
    if artifact.target == "torch":
        mean, std = (list(values) for values in (artifact.preprocess.mean, artifact.preprocess.std))
        options = "".join(f", {key}={value!r}" for key, value in artifact.details.get("model_kwargs", {}).items())
        return [
            "import timm, torch",
            "from safetensors.torch import load_file",
            f'network = timm.create_model("{artifact.model}", num_classes={len(artifact.classes)}{options}).eval()',
            f'network.load_state_dict(load_file("{file}"))',
            f"mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ({mean}, {std}))",
            "with torch.inference_mode():",
            "    logits = network((torch.tensor(x) / 255 - mean) / std)[0].double().numpy()",
        ]
    name = "model.onnx" if artifact.target == "tensorrt" else file
    return [
        "import onnxruntime as ort",
        f'session = ort.InferenceSession("{name}", providers=["CPUExecutionProvider"])',
        "logits = session.run(None, {session.get_inputs()[0].name: x})[0][0].astype(float)",
    ]
