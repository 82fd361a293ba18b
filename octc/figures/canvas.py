"""Flat figures of boxes, lines and words, drawn twice from one list: as SVG (text) and as PNG (Pillow)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw, ImageFont

INK, GREY, PAPER = "#222222", "#cccccc", "#ffffff"
ON_LIGHT, ON_DARK = "#1a1a1a", "#fefefe"  # words on a filled box, whatever the page's own colours are
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # Okabe and Ito


@dataclass(frozen=True)
class Box:
    """A filled rectangle; x and y of its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    fill: str


@dataclass(frozen=True)
class Line:
    """An open line through points (x, y)."""

    points: tuple[tuple[float, float], ...]
    colour: str = INK
    width: float = 1.5


@dataclass(frozen=True)
class Words:
    """A line of text whose middle height is y; x is its start, middle or end. upright: read from below, middle only."""

    x: float
    y: float
    text: str
    size: float = 13
    anchor: str = "middle"
    colour: str = INK
    upright: bool = False


@dataclass(frozen=True)
class Figure:
    """Size in pixels, and what is drawn, in order."""

    width: int
    height: int
    parts: tuple[Box | Line | Words, ...]


def to_inline(figure: Figure, label: str, theme: Mapping[str, str]) -> str:
    """The figure as an element of a page: it shrinks to the page's width, is read out as `label`, and its colours (of ink,
    grid and paper) are those of the page.

    theme: colour -> what stands for it, for example INK -> "var(--ink)".
    """
    size = f'viewBox="0 0 {figure.width} {figure.height}" style="max-width:{figure.width}px"'
    body = "\n".join(_element(part) for part in figure.parts)
    for colour, word in theme.items():
        body = body.replace(f'"{colour}"', f'"{word}"')
    return f'<svg {size} role="img" aria-label="{escape(label)}">\n{body}\n</svg>'


def to_svg(figure: Figure) -> bytes:
    """The figure as an SVG file."""
    size = f'width="{figure.width}" height="{figure.height}" viewBox="0 0 {figure.width} {figure.height}"'
    rows = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">']
    rows.append(f'<rect width="{figure.width}" height="{figure.height}" fill="{PAPER}"/>')
    rows += [_element(part) for part in figure.parts]
    return ("\n".join([*rows, "</svg>"]) + "\n").encode()


def _element(part: Box | Line | Words) -> str:
    if isinstance(part, Box):
        return f'<rect x="{part.x:g}" y="{part.y:g}" width="{part.width:g}" height="{part.height:g}" fill="{part.fill}"/>'
    if isinstance(part, Line):
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in part.points)
        return f'<polyline points="{points}" fill="none" stroke="{part.colour}" stroke-width="{part.width:g}"/>'
    turn = f' transform="rotate(-90 {part.x:g} {part.y:g})"' if part.upright else ""
    style = f'font-size="{part.size:g}" text-anchor="{part.anchor}" dominant-baseline="central" fill="{part.colour}"'
    return f'<text x="{part.x:g}" y="{part.y:g}" {style}{turn}>{escape(part.text)}</text>'


def to_png(figure: Figure, scale: int = 2) -> bytes:
    """The figure as a PNG file of `scale` times its size."""
    picture = Image.new("RGB", (figure.width * scale, figure.height * scale), PAPER)
    draw = ImageDraw.Draw(picture)
    for part in figure.parts:
        if isinstance(part, Box):
            corner = ((part.x + part.width) * scale - 1, (part.y + part.height) * scale - 1)
            if part.width > 0 and part.height > 0:
                draw.rectangle([(part.x * scale, part.y * scale), corner], fill=part.fill)
        elif isinstance(part, Line):
            points = [(x * scale, y * scale) for x, y in part.points]
            draw.line(points, fill=part.colour, width=max(1, round(part.width * scale)), joint="curve")
        else:
            _write(picture, draw, part, scale)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", dpi=(96 * scale, 96 * scale))
    return stream.getvalue()


def _write(picture: Image.Image, draw: ImageDraw.ImageDraw, words: Words, scale: int) -> None:
    font = ImageFont.load_default(words.size * scale)
    if not words.upright:
        anchor = {"start": "lm", "middle": "mm", "end": "rm"}[words.anchor]
        draw.text((words.x * scale, words.y * scale), words.text, fill=words.colour, font=font, anchor=anchor)
        return
    left, top, right, bottom = (round(v) for v in draw.textbbox((0, 0), words.text, font=font))
    strip = Image.new("RGB", (right - left + 2, bottom - top + 2), PAPER)
    ImageDraw.Draw(strip).text((1 - left, 1 - top), words.text, fill=words.colour, font=font)
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    picture.paste(turned, (round(words.x * scale) - turned.width // 2, round(words.y * scale) - turned.height // 2))


def shade(share: float) -> str:
    """From white (0) to blue (1)."""
    light, dark = (247, 251, 255), (8, 48, 107)
    red, green, blue = (round(a + (b - a) * min(max(share, 0.0), 1.0)) for a, b in zip(light, dark, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


@dataclass(frozen=True)
class Axes:
    """A rectangle of the figure with a scale for x and y."""

    x: float
    y: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return self.x + (x - x0) / (x1 - x0) * self.width, self.y + self.height - (y - y0) / (y1 - y0) * self.height

    def curve(self, xs: Sequence[float], ys: Sequence[float], colour: str, width: float = 2.0) -> Line:
        """A line through these points."""
        return Line(tuple(self.place(x, y) for x, y in zip(xs, ys, strict=True)), colour, width)

    def frame(self, x_label: str, y_label: str, title: str) -> list[Box | Line | Words]:
        """Grid, numbers at the ticks, labels and a title."""
        parts: list[Box | Line | Words] = []
        for value in ticks(*self.y_range):
            left, height = self.place(self.x_range[0], value)
            parts += [
                Line(((left, height), (left + self.width, height)), GREY, 1),
                Words(left - 6, height, f"{value:g}", 12, "end"),
            ]
        for value in ticks(*self.x_range):
            parts.append(Words(self.place(value, 0)[0], self.y + self.height + 14, f"{value:g}", 12))
        middle = self.x + self.width / 2
        parts += [
            Words(middle, self.y + self.height + 34, x_label),
            Words(self.x - 46, self.y + self.height / 2, y_label, upright=True),
            Words(middle, self.y - 16, title, 15),
        ]
        return parts


def ticks(low: float, high: float) -> list[float]:
    """Round values from low to high, four to eight of them: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]
