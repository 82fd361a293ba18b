"""Contrast-limited adaptive histogram equalisation (Zuiderveld 1994), of a grey picture or of the lightness of a colour one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

LEVELS = 256
# sRGB (IEC 61966-2-1) with the white of D65; CIE L*a*b*
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
WHITE = TO_XYZ.sum(axis=1)
EDGE = 6 / 29


def equalise(picture: Image.Image, clip: float, grid: tuple[int, int]) -> Image.Image:
    """A picture of mode L or RGB with its contrast equalised in tiles; of RGB the L channel of CIE Lab alone.

    Args:
        clip: no bin of a tile's histogram keeps more than this multiple of the mean bin; the rest is spread over all bins.
        grid: rows and columns of tiles; maps are interpolated between the centres of the tiles.
    """
    if picture.mode == "L":
        return Image.fromarray(equalise_plane(np.asarray(picture), clip, grid))
    lab = _to_lab(np.asarray(picture.convert("RGB")))
    light = np.rint(lab[..., 0] * 2.55).astype(np.uint8)
    lab[..., 0] = equalise_plane(light, clip, grid) / np.float32(2.55)
    return Image.fromarray(_from_lab(lab))


def equalise_plane(plane: UInt8, clip: float, grid: tuple[int, int]) -> UInt8:
    """One plane uint8 [H, W]; sides that the grid does not divide are mirrored at their end before tiles are cut."""
    height, width = plane.shape
    rows, columns = min(grid[0], height), min(grid[1], width)
    tall, wide = -(-height // rows), -(-width // columns)
    padded = np.pad(plane, ((0, rows * tall - height), (0, columns * wide - width)), mode="symmetric")
    tiles = padded.reshape(rows, tall, columns, wide).transpose(0, 2, 1, 3).reshape(rows * columns, tall * wide)
    maps = np.stack([_map(tile, clip) for tile in tiles]).reshape(rows, columns, LEVELS)
    y, x = _between(height, tall, rows), _between(width, wide, columns)
    out = np.zeros((height, width), np.float32)
    for row, wy in y:
        for column, wx in x:
            out += maps[row[:, None], column[None], plane] * wy[:, None] * wx[None]
    return np.rint(out).astype(np.uint8)


def _map(tile: UInt8, clip: float) -> Float32:
    """Grey level -> equalised level of one tile [pixels]: the clipped histogram, summed up."""
    counts = np.bincount(tile, minlength=LEVELS)
    limit = max(1, int(clip * len(tile) / LEVELS))
    over = int(np.maximum(counts - limit, 0).sum())
    counts = np.minimum(counts, limit) + over // LEVELS
    rest = over % LEVELS
    if rest:
        counts[:: max(1, LEVELS // rest)][:rest] += 1
    total: Float32 = (np.cumsum(counts) * ((LEVELS - 1) / len(tile))).astype(np.float32)
    return np.minimum(total, LEVELS - 1)


def _between(length: int, tile: int, tiles: int) -> list[tuple[npt.NDArray[np.intp], Float32]]:
    """The two tiles whose centres lie around each pixel, with their weights."""
    place = (np.arange(length) + 0.5) / tile - 0.5
    low = np.floor(place).astype(np.intp)
    share = (place - low).astype(np.float32)
    return [(np.clip(low, 0, tiles - 1), 1 - share), (np.clip(low + 1, 0, tiles - 1), share)]


def _to_lab(pixels: UInt8) -> Float32:
    values = pixels.astype(np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    t = linear @ TO_XYZ.T / WHITE
    f = np.where(t > EDGE**3, np.cbrt(t), t / (3 * EDGE**2) + 4 / 29)
    lab: Float32 = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1).astype(
        np.float32
    )
    return lab


def _from_lab(lab: Float32) -> UInt8:
    fy = (lab[..., 0].astype(np.float64) + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    t = np.where(f > EDGE, f**3, 3 * EDGE**2 * (f - 4 / 29)) * WHITE
    linear = np.clip(t @ np.linalg.inv(TO_XYZ).T, 0, 1)
    values = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    out: UInt8 = np.rint(values * 255).astype(np.uint8)
    return out
