"""An imported ONNX network as everything of the house uses one: a module that gives logits of normalised pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from octc.export.imports.graph import Described, compose
from octc.export.onnx.float import INPUT, OUTPUT, save, strip
from octc.imaging.foreign import Foreign
from octc.imaging.preprocess import Float32
from octc.runtimes.onnxrt import reference_session


class OnnxNetwork(nn.Module):
    """Runs an ONNX file with every operator as it is written: normalised float32 [N, 3, R, R] -> logits float32 [N, K].

    file: that takes what `forward` takes. artifact: the same network that takes uint8 and normalises.
    """

    def __init__(self, file: Path, artifact: Path) -> None:
        super().__init__()
        self.file, self.artifact = file, artifact
        self.session = reference_session(file)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(run_float(self.session, x.cpu().contiguous().numpy()))


@dataclass(frozen=True)
class ImportedFile:
    """A foreign file behind octc's input, in a temporary folder.

    Attributes:
        target: of the artifact. files: what goes into it, the main one first. network: for `OnnxNetwork`, None of an IR.
        facts: of the manifest. run: normalised float32 [N, 3, S, S], as the network itself sees it -> logits float32 [N, K].
    """

    known: Described
    target: str
    files: tuple[Path, ...]
    network: Path | None
    facts: dict[str, Any]
    run: Callable[[Float32], Float32]


def run_float(session: Any, images: Float32) -> Float32:
    """Logits of normalised pictures, one by one: a foreign graph may know one batch size only."""
    rows = [session.run([OUTPUT], {INPUT: np.ascontiguousarray(one[None])})[0] for one in images]
    return np.concatenate(rows).astype(np.float32)


def write_pair(proto: onnx.ModelProto, known: Described, foreign: Foreign, files: tuple[Path, Path]) -> None:
    """Write the file of `OnnxNetwork` and the one of an artifact."""
    for path, as_uint8 in zip(files, (False, True), strict=True):
        made = compose(proto, known, foreign, as_uint8=as_uint8)
        strip(made)
        save(made, path)
