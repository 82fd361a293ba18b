"""A contact sheet of a volume: its B-scans in order, each with its number, and the eye on top."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from octc.volumes.volume import Volume

WIDTH, GAP, LINE = 192, 6, 14  # pixels
MOST = 60  # B-scans on a sheet; of more, evenly chosen ones
EYES = {"R": "right eye", "L": "left eye", None: "eye unknown"}


def chosen(frames: int, most: int = MOST) -> list[int]:
    """Numbers of the B-scans that a sheet shows: all, or evenly spaced ones with the first and the last."""
    if frames <= most:
        return list(range(frames))
    return sorted({round(k * (frames - 1) / (most - 1)) for k in range(most)})


def contact_sheet(volume: Volume) -> Image.Image:
    """A picture in mode L. Frames are read one by one."""
    shown = chosen(volume.frames)
    height = max(1, round(WIDTH * volume.rows / volume.columns))
    across = min(len(shown), max(1, math.isqrt(len(shown))) + 1)
    down = -(-len(shown) // across)
    top = 2 * LINE + GAP
    sheet = Image.new("L", (across * (WIDTH + GAP) + GAP, top + down * (height + LINE + GAP)), 24)
    draw = ImageDraw.Draw(sheet)
    eye = EYES[volume.laterality.value]
    draw.text((GAP, GAP), f"{eye} ({volume.laterality.source}) - {volume.frames} B-scans by {volume.order.value}", fill=255)
    for place, index in enumerate(shown):
        x = GAP + (place % across) * (WIDTH + GAP)
        y = top + (place // across) * (height + LINE + GAP)
        draw.text((x, y), f"{index}  {volume.laterality.value or '?'}", fill=200)
        picture = Image.fromarray(volume.frame(index)).resize((WIDTH, height), Image.Resampling.BILINEAR)
        sheet.paste(picture, (x, y + LINE))
    return sheet
