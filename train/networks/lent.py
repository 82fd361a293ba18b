"""Start weights that a student takes from its teacher, as DistilBERT did it (Sanh et al. 2019, arXiv:1910.01108, section 3).

A tensor goes over where both networks have one of its name: whole where the shapes are the same, else its first channels where
the channels alone differ in number. What the teacher lacks begins as if it was not there: a residual block as identity, a gate
with one number for all channels and images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from octc.core.errors import OctcError, shorten
from octc.train.loop.checkpoint import refuse_not_finite
from octc.train.networks.squeeze_excite import EQUAL, gates_of, mean_gates

TEACHER = "teacher"  # instead of a file
LEAST = 0.5  # of a student's parameters: with fewer from its teacher the two are not of one family
CHANNELS = 2  # the leading dimensions of a weight that count channels: [out, in, height, width]
NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
HINT = "--weights FILE or none, or a teacher of the student's family (one builder of timm, as EfficientNet-Lite2 and B2)"

State = Mapping[str, torch.Tensor]


def is_lent(file: Path | None) -> bool:
    """Whether start weights are the teacher's."""
    return file is not None and str(file) == TEACHER


def check_lenders(count: int) -> None:
    """Refuse (E102) start weights of a teacher where a student has none, or several: which one is not for octc to say."""
    if count != 1:
        text = f"--weights {TEACHER}, and the student has {'no teacher' if count == 0 else f'{count} teachers'}"
        raise OctcError("OCT-E102", text, hint="one teacher (--teacher RUN), or --weights FILE or none", place="--weights")


@dataclass(frozen=True)
class Lent:
    """What went over, in parameters. names: of the tensors that are the teacher's, whole or in part."""

    parameters: int
    whole: int
    part: int
    names: frozenset[str]

    @property
    def share(self) -> float:
        return (self.whole + self.part) / max(self.parameters, 1)

    def facts(self) -> dict[str, Any]:
        """For the record of the run: parameters that are the teacher's, whole tensors and parts of some, and those drawn."""
        drawn = self.parameters - self.whole - self.part
        return {"parameters": self.parameters, "taken_whole": self.whole, "taken_in_part": self.part, "drawn": drawn}

    def holds(self, module: str) -> bool:
        """Whether anything of a module is the teacher's."""
        return any(name.startswith(f"{module}.") for name in self.names)


@torch.no_grad()
def lend(model: nn.Module, state: State, place: str) -> Lent:
    """Copy into `model`, in place, what a teacher's state has of it; parameters and the statistics of norms.

    Args:
        place: what errors name.

    Raises:
        OctcError: E307 less than `LEAST` of the parameters, or values that are not finite.
    """
    own = model.state_dict()
    parameters = {name: value.numel() for name, value in model.named_parameters()}
    whole = part = 0
    names: set[str] = set()
    groups = {f"{name}.weight": layer.groups for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    for name, tensor in own.items():
        theirs = state.get(name)
        block = None if theirs is None else _common(tensor, theirs, groups.get(name, 1))
        if theirs is None or block is None:
            continue
        refuse_not_finite({name: theirs}, place)
        tensor[block] = theirs[block].to(tensor.dtype)
        names.add(name)
        if name in parameters:
            taken = tensor[block].numel()
            whole, part = (whole + taken, part) if theirs.shape == tensor.shape else (whole, part + taken)
    found = Lent(sum(parameters.values()), whole, part, frozenset(names))
    if found.share < LEAST:
        text = (
            f"the student has {100 * found.share:.0f} % of its parameters in common with the teacher: too few to begin from it"
        )
        raise OctcError("OCT-E307", text, hint=HINT, place=place, why=f"at least {100 * LEAST:.0f} % are needed")
    return found


def _common(tensor: torch.Tensor, theirs: torch.Tensor, groups: int) -> tuple[slice, ...] | None:
    """The block that two tensors share: all of it, or the first channels; None where they are not of one kind.

    Kernels of another size have no place in common; in a layer with groups the second dimension counts the channels of one.
    """
    if theirs.shape == tensor.shape:
        return (slice(None),) * tensor.ndim
    if theirs.ndim != tensor.ndim or theirs.shape[CHANNELS:] != tensor.shape[CHANNELS:]:
        return None
    one = tensor.ndim > 2 and (groups > 1 or theirs.shape[1] == 1)  # theirs or ours has a filter for each group
    if one and theirs.shape[1] != tensor.shape[1]:
        return None
    return tuple(slice(0, min(a, b)) for a, b in zip(tensor.shape, theirs.shape, strict=True))


@torch.no_grad()
def begin_as_identity(model: nn.Module, lent: Lent, images: torch.Tensor) -> list[str]:
    """Make residual blocks that the teacher lacks give what they are given: the gain of their last norm becomes 0 (Goyal et
    al. 2017, arXiv:1706.02677, section 5.1). Where a block then gives anything else, the gain is put back.

    Args:
        model: in eval mode since. images: normalised float [N, 3, S, S].

    Returns: the names of these blocks.
    """
    model.eval()
    order: list[str] = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, part in model.named_modules()
        if isinstance(part, NORMS)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return list(_identities(model, "", lent, order, images))


def _identities(model: nn.Module, name: str, lent: Lent, order: list[str], images: torch.Tensor) -> Iterator[str]:
    """Blocks below a module that begin as identity from now on: the outermost ones of which the teacher has nothing."""
    for child, part in model.get_submodule(name).named_children():
        own = f"{name}.{child}" if name else child
        norms = [one for one in order if one.startswith(f"{own}.")]
        if not norms:
            continue
        if not lent.holds(own) and _is_identity(model, part, model.get_submodule(norms[-1]), images):
            yield own
        else:
            yield from _identities(model, own, lent, order, images)


def _is_identity(model: nn.Module, block: nn.Module, norm: Any, images: torch.Tensor) -> bool:
    """Whether a block gives what it is given once its last norm has no gain; the gain is put back where it does not."""
    if norm.weight is None:
        return False
    same: list[bool] = []
    given: list[torch.Tensor] = []

    def before(_block: nn.Module, inputs: tuple[Any, ...]) -> None:
        given.append(inputs[0].clone())  # it may be written over inside

    def after(_block: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        same.append(isinstance(output, torch.Tensor) and torch.equal(output, given.pop()))

    gain = norm.weight.clone()
    norm.weight.zero_()
    hooks = [block.register_forward_pre_hook(before), block.register_forward_hook(after)]
    model(images)
    for hook in hooks:
        hook.remove()
    if same and all(same):
        return True
    norm.weight.copy_(gain)
    return False


@torch.no_grad()
def begin_constant(model: nn.Module, lent: Lent, images: torch.Tensor) -> list[str]:
    """Make gates (squeeze-excite) that the teacher lacks give one number for all: their last layer is 0. The norms behind them,
    estimated anew, take that number out, and the gates learn from there. Where one gives anything else, its layer is put back.

    Args:
        model: in eval mode since. images: as in `begin_as_identity`.

    Returns: the names of these gates.
    """
    names = [name for name in mean_gates(model, lambda: [images]) if not lent.holds(name)]
    return [name for name in names if _is_constant(model, model.get_submodule(name), images)]


def _is_constant(model: nn.Module, gate: nn.Module, images: torch.Tensor) -> bool:
    """Whether a gate gives one positive number once its last layer is 0; the layer is put back where it does not."""
    order: list[nn.Module] = []
    layers = [part for part in gate.modules() if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear)]
    hooks = [part.register_forward_hook(lambda part, *_: order.append(part)) for part in layers]
    found: list[torch.Tensor | None] = []
    hooks.append(gate.register_forward_hook(lambda _gate, inputs, output: found.append(gates_of(inputs[0], output))))
    model(images)
    last = order[-1]
    before = {name: value.clone() for name, value in last.state_dict().items()}
    for value in last.parameters():
        value.zero_()
    found.clear()
    model(images)
    for hook in hooks:
        hook.remove()
    if all(_is_one(one) for one in found):
        return True
    last.load_state_dict(before)
    return False


def _is_one(gates: torch.Tensor | None) -> bool:
    """Whether gates [N, C] are one positive number (NaN: of a channel of zeros, which no gate changes)."""
    known = None if gates is None else gates[~gates.isnan()]
    return known is not None and known.numel() > 0 and float(known.min()) > 0 and float(known.max() - known.min()) < EQUAL


def source_of(lender: Mapping[str, Any]) -> dict[str, Any]:
    """Source, checksum and licence of start weights that a teacher lends: the licence of those that it began from itself.

    Args:
        lender: as a lineage has a teacher: model, sha256 (of a trained one), weights. It is kept as `lent_by`.
    """
    source, licence = (str(lender["weights"].get(key) or "unknown") for key in ("source", "licence"))
    sha256 = lender.get("sha256", "")
    return {"source": f"teacher {lender['model']} ({source})", "sha256": sha256, "licence": licence, "lent_by": dict(lender)}


def words(found: Mapping[str, Any]) -> list[str]:
    """`Lent.facts` and the blocks in words, a line each; none of other start weights."""
    if "taken_whole" not in found:
        return []
    total = found["parameters"]
    kinds = (("whole", found["taken_whole"]), ("in part", found["taken_in_part"]), ("drawn", found["drawn"]))
    shares = ", ".join(f"{count:,} {kind} ({100 * count / total:.1f} %)" for kind, count in kinds)
    lines = [f"of {total:,} parameters the teacher's tensors give {shares}"]
    for key, what in (("identity_blocks", "blocks that it lacks begin as identity"), ("constant_gates", "gates as a constant")):
        if names := found.get(key):
            lines.append(f"{what}: {shorten(names, 6, 'in the record')}")
    if count := found.get("channels_that_end"):
        lines.append(f"channels that are scaled to end at 6, as the teacher's ReLU6 does: {count}")
    return lines
