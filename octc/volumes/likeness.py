"""Whether the grey of a volume is made as that of the training images, and how it is made so where its numbers allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from octc.volumes.volume import HEYEX_EXPORT, HEYEX_LOG, Intensity, Volume

PICTURE = "picture"  # mapping of an image file: 8 bits as it stores them, made nobody says how
# mapping of a volume -> mappings of training images that are the same to a network
ALIKE: Mapping[str, tuple[str, ...]] = {
    HEYEX_LOG: (HEYEX_LOG, HEYEX_EXPORT),
    HEYEX_EXPORT: (HEYEX_LOG, HEYEX_EXPORT, PICTURE),
    "linear": ("linear", PICTURE),
}
CURVE = ("offset", "shift", "scale")


def fitted(volume: Volume, recorded: Sequence[Mapping[str, Any]]) -> Volume:
    """The volume with its grey made as that of the training images: reflectivity takes the very curve that was recorded.

    recorded: mappings as `Intensity.to_json` gives them. A volume whose numbers cannot be mapped so is given back as it is.
    """
    curve = next((one for one in recorded if one.get("name") == HEYEX_LOG), None)
    if volume.intensity.name != HEYEX_LOG or volume.remap is None or curve is None:
        return volume
    numbers = tuple(float(curve[name]) for name in CURVE)
    if numbers == tuple(float(volume.intensity.numbers[name]) for name in CURVE):
        return volume
    made: Intensity = volume.remap((numbers[0], numbers[1], numbers[2]))
    return replace(volume, intensity=made)


def mismatch(name: str, recorded: Sequence[Mapping[str, Any]] | None) -> str:
    """Why grey that is made by a mapping may not be what a network knows; "" where it is.

    name: of the mapping, PICTURE for an image file. recorded: mappings of the training images; None where nothing is recorded.
    """
    if recorded is None:
        plain = name in ("linear", PICTURE)
        return "" if plain else f"grey is mapped by {name}; whether the training images were is not known to this artifact"
    known = sorted({str(one.get("name")) for one in recorded})
    if name in known or set(ALIKE.get(name, ())) & set(known):
        return ""
    trained = " and ".join(known) or "nothing"
    if name == PICTURE:
        return f"how the grey of this picture was made is not known; the training images were mapped by {trained}"
    if known == [PICTURE] and name == HEYEX_LOG:
        return f"grey is mapped by {name}, as Heidelberg's own exports are; how the training pictures were is not known"
    return f"grey is mapped by {name}, the training images by {trained}: it cannot be mapped so"
