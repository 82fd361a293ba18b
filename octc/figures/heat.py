"""A picture beside itself under a map, with a caption: PNG by Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from octc.figures.canvas import INK, PAPER

LESS, MORE = np.array((255.0, 90.0, 0.0)), np.array((0.0, 90.0, 255.0))  # of positive and of negative values
SHARE = 0.65  # of the colour where the map is strongest
SIDE = 320  # of a panel, at least
GAP, LINE, SIZE = 8, 18, 13


def draw_heat(picture: npt.NDArray[np.uint8], values: npt.NDArray[np.float32], limit: float, caption: Sequence[str]) -> bytes:
    """A PNG file: the picture, the same under the map, and below them the caption, which is the file's Description too.

    Args:
        picture: uint8 [channels, S, S], one or three channels. values: [S, S]; orange where above 0, blue where below.
        limit: value of the full colour, above 0. caption: lines; long ones are broken.
    """
    plain = np.repeat(picture, 3, axis=0) if len(picture) == 1 else picture
    plain = np.ascontiguousarray(plain.transpose(1, 2, 0))
    share = (SHARE * np.clip(np.abs(values) / limit, 0, 1))[..., None].astype(np.float64)
    colour = np.where(values[..., None] > 0, LESS, MORE)
    mixed = np.clip(np.rint((1 - share) * plain + share * colour), 0, 255).astype(np.uint8)
    side = len(plain) * max(1, -(-SIDE // len(plain)))
    panels = [Image.fromarray(one).resize((side, side), Image.Resampling.NEAREST) for one in (plain, mixed)]
    width = 2 * panels[0].width + 3 * GAP
    font = ImageFont.load_default(SIZE)
    lines = [part for line in caption for part in _broken(_spelt(line), width - 2 * GAP, font)]
    sheet = Image.new("RGB", (width, panels[0].height + 2 * GAP + LINE * len(lines) + GAP), PAPER)
    for place, panel in enumerate(panels):
        sheet.paste(panel, (GAP + place * (panel.width + GAP), GAP))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((GAP, panels[0].height + 2 * GAP + LINE * number), line, fill=INK, font=font)
    described = PngImagePlugin.PngInfo()
    described.add_itxt("Description", "\n".join(map(_spelt, caption)))
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", pnginfo=described)
    return stream.getvalue()


def _spelt(line: str) -> str:
    """Text that can be written, whatever bytes a file name holds."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line)


def _broken(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """A line in pieces that fit, broken between words, and within a word that is too long."""
    pieces = [""]
    for word in line.split(" "):
        candidate = f"{pieces[-1]} {word}" if pieces[-1] else word
        if font.getlength(candidate) <= width:
            pieces[-1] = candidate
            continue
        if pieces[-1]:
            pieces.append("")
        for sign in word:
            if pieces[-1] and font.getlength(pieces[-1] + sign) > width:
                pieces.append("")
            pieces[-1] += sign
    return pieces
