"""Activation ranges that NVIDIA's pytorch-quantization or ModelOpt found: the `_amax` of their quantisers, from safetensors.

Their keys are LAYER._input_quantizer._amax (pytorch-quantization) and LAYER.input_quantizer._amax (ModelOpt). Ranges of weights
are not read: octc takes them from the folded weights themselves.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from torch import fx

from octc.compress.calibrate import LEVELS
from octc.compress.fake_quant import ActivationQuantiser
from octc.compress.placement import is_quantised_conv
from octc.core.errors import OctcError, shorten
from octc.train.loop.checkpoint import read_weights

KEY = re.compile(r"(?:module\.|model\.)?(.+)\._?input_quantizer\._amax")
HINT = "calibrate again, or leave --amax out"


def read_amax(path: Path) -> dict[str, float]:
    """The largest magnitude at the input of each layer.

    Raises:
        OctcError: E308 a pickle, E310, E307 no `_amax` in the file or one for each channel, E404 one that is no range.
    """
    found = {}
    for key, value in read_weights(path).items():
        match = KEY.fullmatch(key)
        if match is None:
            continue
        if value.numel() != 1:
            text = f"{key} has {value.numel()} values: an activation has one range"
            raise OctcError("OCT-E307", text, hint="per-tensor activation ranges", place=str(path))
        top = float(value.reshape(()))
        if not 0 < top < math.inf:
            raise OctcError("OCT-E404", f"{key} is {top}: no range", hint=HINT, place=str(path))
        found[match[1]] = top
    if not found:
        text = f"{path.name} holds no _input_quantizer._amax"
        hint = "save the state_dict of the calibrated network as safetensors"
        raise OctcError("OCT-E307", text, hint=hint, place=str(path))
    return found


def apply_amax(module: fx.GraphModule, ranges: dict[str, float]) -> dict[str, Any]:
    """Set the scale of each input quantiser whose convolutions the file knows; what it does not know keeps its scale.

    A quantiser that several convolutions share takes the largest of their ranges.

    Returns: {"taken": quantisers set, "kept": quantisers that the file does not know, "unused": layers that are float here}.

    Raises:
        OctcError: E307 when the file is of another network.
    """
    known: set[str] = set()
    taken, kept = 0, []
    for node in module.graph.nodes:
        part = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(part, ActivationQuantiser) or part.kind != "input":
            continue
        readers = [str(user.target) for user in node.users if is_quantised_conv(module, user)]
        tops = [ranges[name] for name in readers if name in ranges]
        known.update(readers)
        if tops:
            part.scale.detach().fill_(max(tops) / LEVELS)
            taken += 1
        else:
            kept.append(str(node.target))
    if not taken:
        text = f"no layer of the file is a convolution of this network: {shorten(sorted(ranges), 3)}"
        raise OctcError("OCT-E307", text, hint="ranges of the same network")
    return {"taken": taken, "kept": kept, "unused": sorted(set(ranges) - known)}
