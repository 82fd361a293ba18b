"""Operators that only move values: slices, parts, borders, other shapes and orders. Codes stay codes on their way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from octc.export.litert.graph import Tensor, constant
from octc.export.litert.state import LAST, NONE, State, attributes, axes_of, refused

MOST_AXES = 6  # of LiteRT's TRANSPOSE
REFLECT = 0  # MirrorPadMode of the schema
HALF_PIXELS = ("half_pixel", "pytorch_half_pixel")
Order = tuple[int, ...]


def given(it: State, name: str) -> tuple[Tensor, Order]:
    """A value as it is there, codes if it is codes, and which axis of ONNX's each of its axes is."""
    rank = len(it.shapes[name])
    if name in it.codes:
        return it.codes[name], LAST if rank == 4 else tuple(range(rank))
    if rank == 4 and not it.lies_plain(name):
        return it.value(name), LAST
    return it.plain(name), tuple(range(rank))


def keep(it: State, name: str, made: Tensor, order: Order) -> None:
    """What is made of such a value stands for NAME."""
    if made.scales is not None:
        it.codes[name] = made
    elif order == LAST:
        it.values[name] = made
    else:
        it.set_plain(name, made)


def in_order(it: State, name: str) -> Tensor:
    """A value in ONNX's order, codes if it is codes; a map of one place lies so already, but for its shape."""
    if name not in it.codes:
        if len(it.shapes[name]) == 4 and _one_place(it.shapes[name]) and not it.lies_plain(name):
            return it.value(name)
        return it.plain(name)
    codes = it.codes[name]
    if len(codes.shape) != 4 or _one_place(it.shapes[name]):
        return codes
    return it.emit("TRANSPOSE", (codes, axes_of((0, 3, 1, 2))), it.shapes[name], f"{name}/ordered", codes)


def _one_place(shape: Sequence[int]) -> bool:
    return math.prod(shape[2:]) == 1


def _keep_in_order(it: State, name: str, made: Tensor) -> None:
    if made.scales is None:
        it.set_plain(name, made)
        return
    if len(made.shape) == 4:
        n, c, h, w = made.shape
        made = it.emit("TRANSPOSE", (made, axes_of(LAST)), (n, h, w, c), f"{name}/codes", made)
    it.codes[name] = made


def reshape(it: State, node: onnx.NodeProto) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze."""
    name = node.output[0]
    if it.shapes[node.input[0]] == it.shapes[name]:
        same(it, node)
        return
    _keep_in_order(it, name, it.reshape(in_order(it, node.input[0]), it.shapes[name], it.free.get(name), f"{name}/reshaped"))


def same(it: State, node: onnx.NodeProto) -> None:
    """The result is what was given."""
    source, order = given(it, node.input[0])
    keep(it, node.output[0], source, order)


def transpose(it: State, node: onnx.NodeProto) -> None:
    name, rank = node.output[0], len(it.shapes[node.input[0]])
    wanted = attributes(node).get("perm") or list(range(rank))[::-1]
    source, order = given(it, node.input[0])
    places = [order.index(axis) for axis in wanted]
    last = [places[axis] for axis in LAST] if rank == 4 else []
    if rank == 4 and (source.scales is not None or last == [0, 1, 2, 3]):  # codes lie channels last
        keep(it, name, turned(it, node, source, last, f"{name}/turned"), LAST)
    else:
        keep(it, name, turned(it, node, source, places, f"{name}/turned"), tuple(range(rank)))


def turned(it: State, node: onnx.NodeProto, source: Tensor, places: Sequence[int], name: str) -> Tensor:
    """A tensor with its axes in another order."""
    if list(places) == list(range(len(places))):
        return source
    if len(places) > MOST_AXES:
        raise refused(node, f"{len(places)} axes in another order, {MOST_AXES} at most")
    return it.emit("TRANSPOSE", (source, axes_of(places)), [source.shape[k] for k in places], name, source)


def cut(
    it: State, source: Tensor, axis: int, start: int, end: int | None, step: int, length: int, name: str
) -> Tensor:  # fmt: skip
    """Of one axis the places from start to end (None: to its end, whichever way it goes)."""
    rank = len(source.shape)
    begins, ends, steps = [0] * rank, [0] * rank, [1] * rank
    begins[axis], ends[axis], steps[axis] = start, 0 if end is None else end, step
    whole = sum(1 << k for k in range(rank) if k != axis)
    shape = [length if k == axis else side for k, side in enumerate(source.shape)]
    parts = tuple(axes_of(one) for one in (begins, ends, steps))
    masks = {"beginMask": whole, "endMask": whole | (1 << axis if end is None else 0)}
    return it.emit(
        "STRIDED_SLICE", (source, *parts), shape, name, source, **masks, ellipsisMask=0, newAxisMask=0, shrinkAxisMask=0
    )


def slice_(it: State, node: onnx.NodeProto) -> None:
    name, shape = node.output[0], it.shapes[node.input[0]]
    parts = [it.constants.get(one) if one else None for one in node.input[1:]]
    if any(one is None for one in parts[:2]):
        raise refused(node, "places that are not constant")
    starts, ends = (np.asarray(one).reshape(-1).tolist() for one in parts[:2])
    axes = list(range(len(starts))) if len(parts) < 3 or parts[2] is None else parts[2].reshape(-1).tolist()
    steps = [1] * len(starts) if len(parts) < 4 or parts[3] is None else parts[3].reshape(-1).tolist()
    made, order = given(it, node.input[0])
    for k, (first, last, place, step) in enumerate(zip(starts, ends, axes, steps, strict=True)):
        axis = place % len(shape)
        places = range(shape[axis])[first:last:step]
        if list(places) == list(range(shape[axis])):
            continue
        if it.free.get(node.input[0]) == axis:
            raise refused(node, "images of a batch")
        stop = None if places.stop < 0 or places.stop >= shape[axis] else places.stop
        made = cut(it, made, order.index(axis), places.start, stop, step, len(places), f"{name}/cut{k}")
    keep(it, name, made, order)


def split(it: State, node: onnx.NodeProto) -> None:
    known = attributes(node)
    axis = int(known.get("axis", 0)) % len(it.shapes[node.input[0]])
    source, order = given(it, node.input[0])
    start = 0
    for name in node.output:
        length = it.shapes[name][axis]
        if name in it.readers or name in it.outputs:
            keep(it, name, cut(it, source, order.index(axis), start, start + length, 1, length, f"{name}/cut"), order)
        start += length


def gather(it: State, node: onnx.NodeProto) -> None:
    name, shape = node.output[0], it.shapes[node.input[0]]
    axis = int(attributes(node).get("axis", 0)) % len(shape)
    places = it.constants.get(node.input[1])
    if places is None:
        raise refused(node, "places that are not constant")
    places = np.where(places < 0, places + shape[axis], places)
    if it.free.get(node.input[0]) == axis:
        raise refused(node, "images of a batch")
    source, order = given(it, node.input[0])
    if places.ndim == 1:
        sides = [len(places) if k == order.index(axis) else side for k, side in enumerate(source.shape)]
        parts = (source, constant(f"{name}/places", places, "int32"))
        keep(it, name, it.emit("GATHER", parts, sides, f"{name}/gathered", source, axis=order.index(axis), batchDims=0), order)
        return
    ordered = in_order(it, node.input[0])
    if ordered.shape != shape:
        ordered = it.reshape(ordered, shape, it.free.get(node.input[0]), f"{name}/ordered")
    if places.ndim == 0:
        one = cut(it, ordered, axis, int(places), int(places) + 1, 1, 1, f"{name}/one")
        _keep_in_order(it, name, it.reshape(one, it.shapes[name], it.free.get(name), f"{name}/reshaped"))
        return
    parts = (ordered, constant(f"{name}/places", places, "int32"))
    _keep_in_order(it, name, it.emit("GATHER", parts, it.shapes[name], f"{name}/gathered", ordered, axis=axis, batchDims=0))


def concat(it: State, node: onnx.NodeProto) -> None:
    """In codes where all are on one grid; what is there in ONNX's order alone is joined so."""
    name, rank = node.output[0], len(it.shapes[node.output[0]])
    axis = attributes(node)["axis"] % rank
    behind = it.ends_in_codes(node)
    if all(one in it.codes and it.codes[one].scales == behind for one in node.input):
        inputs, int8 = it.inputs(node)
        out, _ = it.result(node, int8=int8)
        it.add("CONCATENATION", inputs, out, axis=LAST.index(axis) if rank == 4 else axis, fusedActivationFunction=NONE)
        return
    plain = rank != 4 or all(it.lies_plain(one) or one in it.constants for one in node.input)
    order = tuple(range(rank)) if plain else LAST
    parts = tuple(it.plain(one) if plain else it.value(one) for one in node.input)
    shape = [it.shapes[name][k] for k in order]
    made = it.emit("CONCATENATION", parts, shape, f"{name}/joined", axis=order.index(axis), fusedActivationFunction=NONE)
    keep(it, name, made, order)


def pad(it: State, node: onnx.NodeProto) -> None:
    name, shape = node.output[0], it.shapes[node.input[0]]
    known = attributes(node)
    mode = known.get("mode", b"constant").decode()
    amounts = it.constants.get(node.input[1])
    if amounts is None:
        raise refused(node, "borders that are not constant")
    axes = it.constants[node.input[3]].reshape(-1) if len(node.input) > 3 and node.input[3] else np.arange(len(shape))
    sides = [(0, 0)] * len(shape)
    for k, axis in enumerate(axes):
        sides[int(axis) % len(shape)] = int(amounts[k]), int(amounts[len(axes) + k])
    value = it.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else np.float32(0)
    if any(one < 0 for pair in sides for one in pair):
        raise refused(node, f"negative borders {sides}")
    if mode == "constant" and float(np.asarray(value).reshape(())) != 0 and node.input[0] in it.codes:
        source, order = it.value(node.input[0]), LAST if len(shape) == 4 else tuple(range(len(shape)))
    else:
        source, order = given(it, node.input[0])
    wide = [sides[axis] for axis in order]
    widths = constant(f"{name}/borders", wide, "int32")
    grown = [side + sum(pair) for side, pair in zip(source.shape, wide, strict=True)]
    if mode == "constant":
        if float(np.asarray(value).reshape(())) == 0:
            made = it.emit("PAD", (source, widths), grown, f"{name}/padded", source)
        else:
            made = it.emit("PADV2", (source, widths, constant(f"{name}/value", [value])), grown, f"{name}/padded", source)
    elif mode == "reflect":
        made = it.emit("MIRROR_PAD", (source, widths), grown, f"{name}/padded", source, mode=REFLECT)
    elif mode == "edge":
        made = _edges(it, source, wide, name)
    else:
        raise refused(node, f"mode {mode}")
    keep(it, name, made, order)


def _edges(it: State, source: Tensor, sides: Sequence[tuple[int, int]], name: str) -> Tensor:
    """Borders that repeat the outermost values."""
    made = source
    for axis, (before, after) in enumerate(sides):
        if not before and not after:
            continue
        length = made.shape[axis]
        first = cut(it, made, axis, 0, 1, 1, 1, f"{name}/first{axis}") if before else made
        last = cut(it, made, axis, length - 1, None, 1, 1, f"{name}/last{axis}") if after else made
        shape = [side + before + after if k == axis else side for k, side in enumerate(made.shape)]
        parts = (*[first] * before, made, *[last] * after)
        made = it.emit("CONCATENATION", parts, shape, f"{name}/edge{axis}", made, axis=axis, fusedActivationFunction=NONE)
    return made


def resize(it: State, node: onnx.NodeProto) -> None:
    known = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes(node).items()}
    name, mode = node.output[0], known.get("mode", "nearest")
    before, after = it.shapes[node.input[0]], it.shapes[name]
    places = known.get("coordinate_transformation_mode", "half_pixel")
    whole = all(b % a == 0 for a, b in zip(before, after, strict=True))
    near = places == "asymmetric" and known.get("nearest_mode") == "floor"
    if len(before) != 4 or before[:2] != after[:2] or known.get("antialias"):
        raise refused(node, "another form than a map made larger or smaller")
    options: dict[str, Any] = {
        "alignCorners": places == "align_corners",
        "halfPixelCenters": places in HALF_PIXELS and mode == "linear",
    }
    if (mode, near or (places in HALF_PIXELS and whole)) == ("nearest", True):
        kind = "RESIZE_NEAREST_NEIGHBOR"
    elif mode == "linear" and places in (*HALF_PIXELS, "align_corners", "asymmetric"):
        kind = "RESIZE_BILINEAR"
    else:
        raise refused(node, f"mode {mode} at places {places} {known.get('nearest_mode', '')}")
    source = it.value(node.input[0])
    n, c, h, w = after
    made = it.emit(kind, (source, axes_of((h, w))), (n, h, w, c), name, **options)
    it.values[name] = made


def shuffle(it: State, node: onnx.NodeProto) -> None:
    """DepthToSpace and SpaceToDepth, by shapes of six axes."""
    name, side = node.output[0], int(attributes(node)["blocksize"])
    n, c, h, w = it.shapes[node.input[0]]
    if node.op_type == "SpaceToDepth":
        middle, places = (n, c, h // side, side, w // side, side), (0, 3, 5, 1, 2, 4)
    elif attributes(node).get("mode", b"DCR") == b"CRD":
        middle, places = (n, c // side**2, side, side, h, w), (0, 1, 4, 2, 5, 3)
    else:
        middle, places = (n, side, side, c // side**2, h, w), (0, 3, 4, 1, 5, 2)
    wide = it.reshape(in_order(it, node.input[0]), middle, 0, f"{name}/blocks")
    made = it.reshape(turned(it, node, wide, places, f"{name}/places"), it.shapes[name], 0, f"{name}/shuffled")
    _keep_in_order(it, name, made)


OPERATORS: dict[str, Callable[[Any, onnx.NodeProto], None]] = {
    "Concat": concat, "DepthToSpace": shuffle, "Flatten": reshape, "Gather": gather, "Identity": same, "Pad": pad,
    "Reshape": reshape, "Resize": resize, "Slice": slice_, "SpaceToDepth": shuffle, "Split": split, "Squeeze": reshape,
    "Transpose": transpose, "Unsqueeze": reshape,
}  # fmt: skip
