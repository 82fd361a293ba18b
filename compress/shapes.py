"""A torch.fx tracer that knows the shapes of one input size, and answers Python that asks for them and for nothing else.

A branch, loop or assertion on shapes is what it is for that size in every batch; one on values, or on the number of images, is
not traced.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.fx.proxy import Attribute, TraceError

BATCHES = (1, 2, 5)  # an answer that is not the same for all of them depends on the number of images
# what is asked of a tensor that no value changes
OF_SHAPE = (
    "shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "dtype", "device", "layout", "is_cuda",
    "is_floating_point", "is_complex", "is_nested", "is_quantized", "is_sparse",
)  # fmt: skip
WHOLE = ("einops",)  # packages that ask what kind of tensor they are given: their functions are operators of the graph
OF_IMAGES = "a branch, loop or len() that depends on the number of images in a batch (x.shape[0] is one that a graph keeps)"
# what makes tensors of sizes, types and devices, and asks no tensor whether it is a symbol
FACTORIES = ("arange", "empty", "eye", "full", "linspace", "ones", "zeros")


class _Sized(fx.Proxy):
    """A value of the graph that Python may ask for its number, where that is a matter of shapes."""

    tracer: ShapeTracer

    def __getattr__(self, name: str) -> Any:
        return _SizedAttribute(self, name)

    def __index__(self) -> int:
        return operator.index(self.tracer.known(self))

    def __int__(self) -> int:
        return int(self.tracer.known(self))

    def __float__(self) -> float:
        return float(self.tracer.known(self))

    def __len__(self) -> int:
        return self.tracer.length(self)

    def __setitem__(self, key: Any, value: Any) -> None:
        """What is written into a tensor is a tensor of its own, which the same name in the network means from there on."""
        self.node = self.tracer.create_proxy("call_function", with_written, (self, key, value), {}).node


class _SizedAttribute(Attribute, _Sized):
    """The same of an attribute (`x.shape`)."""

    def __getattr__(self, name: str) -> Any:
        if name == "type" and self.attr == "device":  # a word, which torch.autocast asks for
            return self.tracer.known(self).type
        return super().__getattr__(name)


@contextmanager
def factories_traced() -> Iterator[None]:
    """Meanwhile `torch.zeros(x.shape[0], 8, device=x.device)` and its like are operators of the graph."""
    before = {name: getattr(torch, name) for name in FACTORIES}

    def traced(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            found: list[fx.Proxy] = []
            fx.node.map_aggregate((args, kwargs), lambda one: found.append(one) if isinstance(one, fx.Proxy) else None)
            return found[0].tracer.create_proxy("call_function", function, args, kwargs) if found else function(*args, **kwargs)

        return call

    for name, function in before.items():
        setattr(torch, name, traced(function))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch, name, function)


def with_written(tensor: torch.Tensor, key: Any, value: Any) -> torch.Tensor:
    """A copy of a tensor in which `tensor[key] = value`."""
    made = tensor.clone()
    made[key] = value
    return made


class ShapeTracer(fx.Tracer):
    """Traces with images [N, 3, size, size]. specialised: whether any answer was of this size alone."""

    def __init__(self, size: int) -> None:
        modules: Any = (math, *(sys.modules[name] for name in WHOLE if name in sys.modules))
        super().__init__(autowrap_modules=modules)
        self.specialised = False
        self._running = False
        self._size = size
        self._values: dict[int, dict[fx.Node, Any]] = {}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Sized(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.known(obj)) if self._is_of_shapes(obj.node) else super().to_bool(obj)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        parts: Any = obj
        return iter([parts[k] for k in range(self.length(obj))])

    def known(self, obj: fx.Proxy) -> Any:
        """What a value is for this input size.

        Raises:
            TraceError: it depends on values, or on the number of images.
        """
        if not self._is_of_shapes(obj.node):
            super().to_bool(obj)  # says that values decide
        return self._same(obj.node, lambda value: value)

    def length(self, obj: fx.Proxy) -> int:
        """How many parts a value has for this input size, whatever it holds (TraceError: the number of images decides)."""
        return int(self._same(obj.node, len))

    def _same(self, node: fx.Node, measure: Callable[[Any], Any]) -> Any:
        found = [measure(self._value(node, count)) for count in BATCHES]
        if any(one != found[0] for one in found):
            raise TraceError(OF_IMAGES)
        self.specialised = True
        return found[0]

    def _is_of_shapes(self, node: fx.Node) -> bool:
        """Whether nothing of an image but its shape goes into a value: weights are what they are."""
        left, seen = [node], set[fx.Node]()
        while left:
            one = left.pop()
            if one in seen or _asks_shape(one):
                continue
            seen.add(one)
            if one.op in ("placeholder", "call_module"):
                return False
            left += one.all_input_nodes
        return True

    def _value(self, wanted: fx.Node, count: int) -> Any:
        """A node's value for a batch of so many images. All nodes in front of it are run, each once and in order."""
        values = self._values.setdefault(count, {})
        weights = next(self.root.parameters(), torch.zeros(()))
        image = torch.zeros(count, 3, self._size, self._size, dtype=weights.dtype)
        self._running = True
        try:
            with torch.no_grad():
                for node in self.graph.nodes:
                    if node not in values:
                        values[node] = value_of(self.root, node, values, image)
                    if node is wanted:
                        break
        finally:
            self._running = False
        return values[wanted]

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """While a value is computed modules compute, and add nothing to the graph."""
        return forward(*args, **kwargs) if self._running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)


def of_the_image(graph: fx.Graph) -> set[fx.Node]:
    """The nodes into which more of an image goes than its shape; what all others give is known beforehand."""
    found = set[fx.Node]()
    for node in graph.nodes:
        if node.op == "placeholder" or (not _asks_shape(node) and any(one in found for one in node.all_input_nodes)):
            found.add(node)
    return found


def _asks_shape(node: fx.Node) -> bool:
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in OF_SHAPE
    if node.op == "call_function" and node.target in (len, torch.numel, torch.is_floating_point):
        return True
    return node.op == "call_method" and node.target in OF_SHAPE


def value_of(root: nn.Module, node: fx.Node, values: dict[fx.Node, Any], image: torch.Tensor | None = None) -> Any:
    """What one node gives, of the values of those in front of it."""
    args: Any = fx.node.map_arg(node.args, lambda one: values[one])
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda one: values[one])
    target: Any = node.target
    if node.op == "placeholder":
        return image
    if node.op == "get_attr":
        return operator.attrgetter(target)(root)
    if node.op == "call_module":
        return root.get_submodule(target)(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], target)(*args[1:], **kwargs)
    return target(*args, **kwargs)
