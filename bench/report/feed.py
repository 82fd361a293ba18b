"""What to feed an artifact without octc, in words: the input of its own file, and how a picture becomes it."""

from __future__ import annotations

from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.runtimes.graph_input import GraphInput, read_graph_input
from octc.store.artifacts import Artifact
from octc.store.find import Found


def picture_words(pre: Preprocess) -> str:
    """From a decoded picture to the values of the tensor, before anything that a graph does."""
    mode = "grey (Pillow mode L)" if pre.channels == 1 else "RGB"
    clahe = (
        f", contrast equalised (CLAHE, clip {pre.clahe:g}, {pre.clahe_grid[0]} x {pre.clahe_grid[1]} tiles)"
        if pre.clahe
        else ""
    )
    return (
        f"{mode}{clahe}, resized to {pre.size} x {pre.size} px by Pillow's antialiased {pre.resize} (Image.resize; a resize "
        "without antialiasing, as cv2.resize and torch.nn.functional.interpolate are by default, changes answers)"
    )


def inside_words(pre: Preprocess) -> str:
    """What a graph of octc does with its uint8 input itself."""
    mean, std = ("/".join(f"{n:.3g}" for n in values) for values in (pre.mean, pre.std))
    return f"the graph itself divides by 255 and normalises (mean {mean}, deviation {std})"


def values_words(found: GraphInput | None, pre: Preprocess) -> str:
    """Whether the values are normalised before: never where the graph takes bytes."""
    if found is None or found.type == "uint8":
        return f"values 0 to 255, not normalised: {inside_words(pre)}"
    return f"the graph takes {found.type}: it is not one that octc wrote, ask who made it how its input is normalised"


def input_rows(founds: tuple[Found, ...]) -> list[tuple[str, str, str, str]]:
    """(artifact, name, type, shape) of every input, from the files."""
    rows = []
    for found in founds:
        one = input_of(found)
        if isinstance(one, str):
            rows.append((found.artifact.name, one, "", ""))
        else:
            rows.append((found.artifact.name, one.name, one.type, f"[{', '.join(one.shape)}]"))
    return rows


def input_of(found: Found) -> GraphInput | str:
    """The input of one artifact, or why it has none."""
    try:
        return read_graph_input(found.folder, found.artifact) or _weights(found.artifact)
    except OctcError as error:
        return error.message


def _weights(artifact: Artifact) -> str:
    pre = artifact.preprocess
    return f"weights without a graph: octc builds the network, which takes uint8 [N, {pre.channels}, {pre.size}, {pre.size}]"
