"""The torch artifact: timm's network with its safetensors, in eval and inference mode, channels_last. The teacher's row."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.imaging.preprocess import Float32, UInt8
from octc.runtimes.base import broken, check_batch, check_logits, closed, no_facts
from octc.store.artifacts import Artifact, read_listed

# `timm.create_model` also takes names of repositories and arguments that open files: none of that is taken from a manifest
NAME = re.compile(r"[a-zA-Z0-9_]+(\.[a-zA-Z0-9_]+)?")
ARGUMENTS = ("act_layer", "drop_rate", "drop_path_rate", "img_size", "global_pool")


class EagerRuntime:
    """A torch network behind its normalisation."""

    def __init__(self, folder: Path, artifact: Artifact, threads: int) -> None:
        torch = need("torch")
        self.name = artifact.name
        self._artifact = artifact
        self._model: Any = _build(folder, artifact)
        self._before = torch.get_num_threads()
        torch.set_num_threads(threads)
        self._scale, self._shift = (torch.tensor(values).view(1, 3, 1, 1) for values in artifact.preprocess.affine)
        self.facts = {
            **no_facts("torch", torch.__version__),
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "mode": "inference",
            "channels_last": True,
            "compiled": False,
            "timm": need("timm").__version__,
            "precision_hint": "f32",
        }

    def __call__(self, batch: UInt8) -> Float32:
        if self._model is None:
            raise closed(self.name)
        check_batch(batch, self._artifact)
        torch = need("torch")
        with torch.inference_mode():
            images = torch.tensor(batch).float() * self._scale - self._shift
            logits = self._model(images.contiguous(memory_format=torch.channels_last))  # grey was spread to three by the scale
        return check_logits(logits.numpy(), len(batch), self._artifact)

    def precision_found(self) -> dict[str, int]:
        if self._model is None:
            raise closed(self.name)
        conv = need("torch").nn.Conv2d
        kinds = Counter(str(m.weight.dtype) for m in self._model.modules() if isinstance(m, conv))
        return {{"torch.float32": "fp32"}.get(kind, kind): count for kind, count in kinds.items()}

    def close(self) -> None:
        if self._model is not None:
            need("torch").set_num_threads(self._before)
        self._model = None


def open_eager(folder: Path, artifact: Artifact, threads: int, batch: int | None) -> EagerRuntime:
    """Open a torch artifact; the number of threads is torch's own, for the whole process, until it is closed.

    Raises:
        OctcError: E502 the weights do not fit the network that the manifest names, E901 torch or timm is not installed.
    """
    del batch
    return EagerRuntime(folder, artifact, threads)


def _build(folder: Path, artifact: Artifact) -> Any:
    torch, timm = need("torch"), need("timm")
    options = artifact.details.get("model_kwargs", {})
    if not NAME.fullmatch(artifact.model) or not isinstance(options, dict) or set(options) - set(ARGUMENTS):
        text = f"{artifact.name} names a network that octc does not build: {artifact.model!r} with {options!r}"
        raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json")
    data = read_listed(folder, artifact, artifact.main_file)
    try:
        with torch.random.fork_rng(devices=[]):  # weights that the file replaces are drawn: the caller's random numbers stay
            model = timm.create_model(artifact.model, pretrained=False, num_classes=len(artifact.classes), **options)
        state = need("safetensors.torch").load(data)
        model.load_state_dict(state, strict=True)
    except MemoryError:
        raise
    except Exception as error:  # timm, safetensors and torch: an unknown name, a damaged file, other keys or shapes
        raise broken(artifact, error) from error
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
