"""The picture of the README: how a run becomes a file on an edge box, drawn with octc's own figures.

python benchmarks/pipeline.py > docs/pipeline.svg
"""

from __future__ import annotations

import sys

from octc.figures.canvas import COLOURS, INK, ON_DARK, ON_LIGHT, Box, Figure, Line, Words, to_svg

Parts = list[Box | Line | Words]
WIDTH, HEIGHT = 980, 396
BLUE, ORANGE, GREEN = COLOURS[0], COLOURS[1], COLOURS[2]
PALE = {BLUE: "#e6f1f8", GREEN: "#e5f5f0"}
SIZE = (160, 74)  # of a step
STEP = 191  # from one step to the next
LEFT = 28
# a step: its name, what it does in two lines
MAKER = (
    ("data", "a split by patient;", "leakage is an error"),
    ("teacher", "large network, FP32", "octc train teacher"),
    ("student", "small network, distilled", "octc train student"),
    ("INT8", "calibrated, then tuned", "with fake quantisation"),
    ("export", "ONNX, OpenVINO, TensorRT", "gated: octc export"),
)
DEVICE = (
    ("verify", "test patients, intervals,", "a verdict: octc verify"),
    ("bench", "latency, size, memory", "here: octc bench"),
    ("report", "a page, a model card:", "octc report"),
    ("predict", "label, probabilities,", "notes: octc predict"),
)
FILES = ("artifact", "model · preprocessing · classes · golden images · checksums · lineage")


def step(x: float, y: float, name: str, lines: tuple[str, str], colour: str) -> Parts:
    """One box: its name on a band, two lines below."""
    width, height = SIZE
    middle = x + width / 2
    return [
        Box(x, y, width, height, PALE[colour]),
        Box(x, y, width, 24, colour),
        Words(middle, y + 12, name, 14, colour=ON_DARK),
        *(Words(middle, y + 40 + 19 * k, line, 11.5, colour=ON_LIGHT) for k, line in enumerate(lines)),
    ]


def arrow(*points: tuple[float, float]) -> Parts:
    """A line whose last part, along one axis, ends in a head."""
    (x0, y0), (x1, y1) = points[-2:]
    back, side = 7.0, 4.0
    if x0 == x1:
        down = 1 if y1 > y0 else -1
        head = ((x1 - side, y1 - down * back), (x1, y1), (x1 + side, y1 - down * back))
    else:
        right = 1 if x1 > x0 else -1
        head = ((x1 - right * back, y1 - side), (x1, y1), (x1 - right * back, y1 + side))
    return [Line(points, INK, 1.5), Line(head, INK, 1.5)]


def draw() -> Figure:
    """Maker's side above, device side below, the artifact between them."""
    width, height = SIZE
    above, between, below = 48.0, 176.0, 304.0
    parts: Parts = [Words(LEFT, 24, "workstation: octc[train,export] (torch)", 14, "start", BLUE)]
    for k, (name, *lines) in enumerate(MAKER):
        x = LEFT + STEP * k
        parts += step(x, above, name, (lines[0], lines[1]), BLUE)
        if k:
            parts += arrow((x - STEP + width + 3, above + height / 2), (x - 4, above + height / 2))
    last = LEFT + STEP * (len(MAKER) - 1)
    parts += [
        Box(LEFT, between, last + width - LEFT, 52, "#fdf1e6"),
        Box(LEFT, between, 8, 52, ORANGE),
        Words(LEFT + 24, between + 26, FILES[0], 14, "start", ORANGE),
        Words(LEFT + 106, between + 26, FILES[1], 12.5, "start", ON_LIGHT),
        Words(last + width - 14, between + 26, "a folder; scp -r deploys it", 12.5, "end", ON_LIGHT),
        *arrow((last + width / 2, above + height + 3), (last + width / 2, between - 4)),
        Words(LEFT, below + 12, "edge box: octc[ort],", 14, "start", GREEN),
        Words(LEFT, below + 34, "[openvino], [tensorrt]", 14, "start", GREEN),
        Words(LEFT, below + 56, "(no torch)", 14, "start", GREEN),
    ]
    for k, (name, *lines) in enumerate(DEVICE):
        x = last - STEP * (len(DEVICE) - 1 - k)
        parts += step(x, below, name, (lines[0], lines[1]), GREEN)
        parts += arrow((x + width / 2, between + 55), (x + width / 2, below - 4))
    return Figure(WIDTH, HEIGHT, tuple(parts))


if __name__ == "__main__":
    sys.stdout.write(to_svg(draw()).decode())
