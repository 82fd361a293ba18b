"""Einsum as transposed products of matrices, two operands at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from octc.export.litert.graph import Tensor
from octc.export.litert.moves import turned
from octc.export.litert.state import State, attributes, axes_of, refused


@dataclass(frozen=True)
class _Sum:
    """An Einsum while it is written.

    lengths: of each letter. free: the letter of the images, "" without one. name: of what it gives.
    """

    it: State
    node: onnx.NodeProto
    lengths: dict[str, int]
    free: str

    @property
    def name(self) -> str:
        return str(self.node.output[0])

    def shape(self, groups: list[str]) -> list[int]:
        return [math.prod(self.lengths[one] for one in group) for group in groups]

    def shaped(self, source: Tensor, groups: list[str], name: str) -> Tensor:
        shape = self.shape(groups)
        if list(source.shape) == shape:
            return source
        place = next((k for k, group in enumerate(groups) if self.free and self.free in group), None)
        return self.it.reshape(source, shape, place, f"{self.name}/{name}")

    def ordered(self, source: Tensor, letters: str, wanted: str, name: str) -> Tensor:
        return turned(self.it, self.node, source, [letters.index(one) for one in wanted], f"{self.name}/{name}")

    def without(self, source: Tensor, letters: str, kept: str, name: str) -> tuple[Tensor, str]:
        """The sum over letters that nothing else has."""
        axes = [k for k, one in enumerate(letters) if one not in kept]
        if not axes:
            return source, letters
        if self.free and self.free in letters and self.free not in kept:
            raise refused(self.node, "over the images of a batch")
        left = "".join(one for one in letters if one in kept)
        inputs = source, axes_of(axes)
        return self.it.emit("SUM", inputs, self.shape(list(left)), f"{self.name}/{name}", keepDims=False), left

    def product(self, first: tuple[Tensor, str], second: tuple[Tensor, str], kept: str, step: int) -> tuple[Tensor, str]:
        """Two operands with their letters, and of the result; letters that are not kept are summed over."""
        name = f"{step}"
        one, a = self.without(*first, kept + second[1], f"{name}/first total")
        two, b = self.without(*second, kept + a, f"{name}/second total")
        every = "".join(c for c in a if c in b and c in kept)
        inner = "".join(c for c in a if c in b and c not in kept)
        rows, columns = ("".join(c for c in x if c not in y) for x, y in ((a, b), (b, a)))
        if self.free and self.free in inner:
            raise refused(self.node, "over the images of a batch")
        head = [every] if every else []
        left = self.shaped(self.ordered(one, a, every + rows + inner, f"{name}/left"), [*head, rows, inner], f"{name}/rows")
        right = self.shaped(
            self.ordered(two, b, every + inner + columns, f"{name}/right"), [*head, inner, columns], f"{name}/in"
        )
        shape = self.shape([*head, rows, columns])
        made = self.it.emit("BATCH_MATMUL", (left, right), shape, f"{self.name}/{name}", adjX=False, adjY=False)
        letters = every + rows + columns
        return self.shaped(made, list(letters), f"{name}/apart"), letters


def einsum(it: State, node: onnx.NodeProto) -> None:
    equation = attributes(node)["equation"].decode().replace(" ", "")
    given, arrow, wanted = equation.partition("->")
    terms = given.split(",")
    if not arrow:
        wanted = "".join(sorted(one for one in set(given) if given.count(one) == 1 and one != ","))
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise refused(node, f"{equation}: dots, or a letter twice in an operand")
    lengths: dict[str, int] = {}
    free = set()
    for term, name in zip(terms, node.input, strict=True):
        lengths |= {one: max(side, lengths.get(one, 1)) for one, side in zip(term, it.shapes[name], strict=True)}
        free |= {term[axis] for axis in [it.free.get(name)] if axis is not None}
    if len(free) > 1 or any(
        lengths[one] != side for t, n in zip(terms, node.input, strict=True) for one, side in zip(t, it.shapes[n], strict=True)
    ):
        raise refused(node, f"{equation}: sides that are repeated, or images on several letters")
    work = _Sum(it, node, lengths, next(iter(free), ""))
    made, letters = it.plain(node.input[0]), terms[0]
    for step, (name, term) in enumerate(zip(node.input[1:], terms[1:], strict=True), 1):
        kept = wanted + "".join(terms[step + 1 :])
        made, letters = work.product((made, letters), (it.plain(name), term), kept, step)
    made, letters = work.without(made, letters, wanted, "total")
    it.set_plain(work.name, work.ordered(made, letters, wanted, "ordered"))
