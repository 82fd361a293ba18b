"""What quantising each convolution costs: one layer at a time in INT8, everything else in float, on the validation set.

Cheap, because the float network runs once a batch: all its tensors are kept, and for each layer only what stands behind it is
computed again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from octc.compress.placement import convolutions, input_path, is_quantised_conv, quantisers, set_mode
from octc.compress.trace import APART, interpreted
from octc.train.networks.models import out_of_place

Batches = Callable[[], Iterable[torch.Tensor]]
GROWTH = 2  # each trial of `keep_float` leaves so many times the layers of the one before in float
SHARE = 4  # at most every fourth layer is left in float
RESTORED = 0.1  # of the KL of the whole INT8 network: what may be left of it


@dataclass(frozen=True)
class Cost:
    """One layer alone in INT8, against the float network.

    Attributes:
        kl: mean KL(float || INT8) of the classes, nats. flips: images whose top-1 class changes.
        noise: mean squared error of the logits over their variance; of use where the KL is too small to tell.
    """

    layer: str
    kl: float
    flips: int
    noise: float


@dataclass(frozen=True)
class Trial:
    """The whole network in INT8 with `kept` of the most costly layers in float: agreement with float, mean KL in nats."""

    kept: tuple[str, ...]
    agreement: float
    kl: float


@dataclass(frozen=True)
class Sensitivity:
    """costs: the most costly layer first. trials: with more and more of them in float. keep: the layers to leave in float."""

    images: int
    costs: tuple[Cost, ...]
    trials: tuple[Trial, ...]
    keep: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def analyse(module: fx.GraphModule, batches: Batches, tick: Callable[[int], None] = lambda _: None) -> Sensitivity:
    """Rank the quantised convolutions of a calibrated network and choose those to leave in float.

    Args:
        module: calibrated, from `octc.compress.placement.prepare`; it is left as it was.
        batches: gives normalised float32 [N, 3, H, W], the same ones each time. tick: called with 1 after each layer and trial.
    """
    module = without_inplace(module)
    costs = layer_costs(module, batches, tick)
    ranked = [cost.layer for cost in costs]
    trials, keep = keep_float(module, ranked, batches, tick)
    return Sensitivity(sum(len(batch) for batch in batches()), tuple(costs), tuple(trials), keep)


def without_inplace(module: fx.GraphModule) -> fx.GraphModule:
    """A copy that never writes into a tensor that it was given: what is cached must stay what it was."""
    module = copy.deepcopy(module).eval()
    out_of_place(module)
    for node in module.graph.nodes:
        node.target = APART.get(node.target, node.target)
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    module.recompile()
    return module


def layer_costs(module: fx.GraphModule, batches: Batches, tick: Callable[[int], None] = lambda _: None) -> list[Cost]:
    """Each quantised convolution alone in INT8 (its weight and its input), the most costly first.

    Args:
        module: as `without_inplace` gives it; its quantisers are left "on".
    """
    names = list(convolutions(module))
    kl, flips, error = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    spread, seen = 0.0, 0
    set_mode(module, "off")
    try:
        for batch in batches():
            cached = _run(module, batch)
            reference = cached.logits
            seen += len(batch)
            spread += float(reference.var(dim=1, unbiased=False).sum())
            for name in names:
                logits = cached.with_one(name)
                kl[name] += divergence(reference, logits) * len(batch)
                flips[name] += int((reference.argmax(1) != logits.argmax(1)).sum())
                error[name] += float((reference - logits).square().mean(1).sum())
                tick(1)
    finally:
        set_mode(module, "on")
    costs = [Cost(name, kl[name] / max(seen, 1), flips[name], error[name] / max(spread, 1e-12)) for name in names]
    return sorted(costs, key=lambda cost: (-cost.kl, -cost.noise, cost.layer))


def keep_float(
    module: fx.GraphModule, ranked: Sequence[str], batches: Batches, tick: Callable[[int], None] = lambda _: None
) -> tuple[list[Trial], tuple[str, ...]]:
    """The whole network with none, 1, 2, 4, ... of the most costly layers in float; the fewest that recover it.

    Mended means: the mean KL is at most a tenth of what it is with every layer in INT8, and no more images change class than
    before. Where that takes more than a quarter of the layers, the trial with the least KL is taken.
    """
    most = max(1, len(ranked) // SHARE)
    sizes = [0]
    while sizes[-1] < most:
        sizes.append(min(max(1, sizes[-1] * GROWTH), most))
    trials = []
    reference = torch.cat([_logits(module, batch, "off", frozenset()) for batch in batches()])
    for size in sizes:
        kept = frozenset(ranked[:size])
        logits = torch.cat([_logits(module, batch, "on", kept) for batch in batches()])
        agreement = float((reference.argmax(1) == logits.argmax(1)).double().mean())
        trials.append(Trial(tuple(ranked[:size]), agreement, divergence(reference, logits)))
        tick(1)
        if size and trials[-1].kl <= RESTORED * trials[0].kl and trials[-1].agreement >= trials[0].agreement:
            return trials, trials[-1].kept
    return trials, min(trials[1:], key=lambda trial: trial.kl).kept


def work(module: fx.GraphModule, images: int, batch: int) -> int:
    """How often `tick` is called at most."""
    layers = len(convolutions(module))
    return -(-images // batch) * layers + max(1, layers // SHARE).bit_length() + 2


def divergence(reference: torch.Tensor, logits: torch.Tensor) -> float:
    """Mean KL(reference || logits) of the classes of logits [N, K], nats."""
    p, q = functional.log_softmax(reference.double(), 1), functional.log_softmax(logits.double(), 1)
    return float((p.exp() * (p - q)).sum(1).mean())


@torch.no_grad()
def _logits(module: fx.GraphModule, batch: torch.Tensor, mode: str, floats: frozenset[str]) -> torch.Tensor:
    """Logits with the quantisers in one mode, but some convolutions, and the quantisers that feed only them, in float."""
    set_mode(module, mode)
    known = quantisers(module)
    for node in module.graph.nodes:
        if node.op == "call_module" and node.target in floats:
            module.get_submodule(node.target).enabled = False  # type: ignore[assignment]
            if path := input_path(module, node):
                alone = all(len(one.users) == 1 for one in path[:-1])
                readers = {str(user.target) for user in path[-1].users if is_quantised_conv(module, user)}
                if alone and readers <= floats:
                    known[str(path[0].target)].mode = "off"
            for user in node.users:
                if user.target in known:
                    known[str(user.target)].mode = "off"
    try:
        return module(batch).float()  # type: ignore[no-any-return]
    finally:
        set_mode(module, "on")


@dataclass(frozen=True)
class _Cached:
    """The float network's tensors for one batch."""

    module: fx.GraphModule
    interpreter: fx.Interpreter
    logits: torch.Tensor

    @torch.no_grad()
    def with_one(self, name: str) -> torch.Tensor:
        """The logits with one convolution in INT8: only what depends on it is computed again."""
        kept = dict(self.interpreter.env)
        changed: set[fx.Node] = set()
        logits = self.logits
        try:
            for node in self.module.graph.nodes:
                if node.op == "call_module" and node.target == name:
                    self.interpreter.env[node] = self._quantised(name, node)
                    changed.add(node)
                elif changed.intersection(node.all_input_nodes):
                    found = self.interpreter.run_node(node)
                    self.interpreter.env[node] = found
                    changed.add(node)
                    if node.op == "output":
                        logits = found.float()
        finally:
            self.interpreter.env = kept
        return logits

    def _quantised(self, name: str, node: fx.Node) -> torch.Tensor:
        """The convolution's output; its quantiser's other readers keep the float tensor."""
        path = input_path(self.module, node)
        quantiser: Any = self.module.get_submodule(str(path[0].target)) if path else None
        conv: Any = self.module.get_submodule(name)
        kept = dict(self.interpreter.env)
        conv.enabled = True
        if quantiser is not None:
            quantiser.mode = "on"
        try:
            for one in path:
                self.interpreter.env[one] = self.interpreter.run_node(one)
            out: torch.Tensor = self.interpreter.run_node(node)
        finally:
            self.interpreter.env = kept
            conv.enabled = False
            if quantiser is not None:
                quantiser.mode = "off"
        return out


@torch.no_grad()
def _run(module: fx.GraphModule, batch: torch.Tensor) -> _Cached:
    interpreter = fx.Interpreter(module, garbage_collect_values=False)
    logits: torch.Tensor = interpreted(interpreter, batch).float()
    return _Cached(module, interpreter, logits)
