"""The contact sheet of a volume: its B-scans in order, of many an even choice, the eye on top."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octc.volumes.sheet import GAP, MOST, WIDTH, chosen, contact_sheet
from octc.volumes.volume import Fact, Raw, Volume, linear


@given(st.integers(1, 2000), st.integers(2, 100))
def test_a_choice_is_even_in_order_and_has_both_ends(frames: int, most: int) -> None:
    found = chosen(frames, most)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (0, frames - 1)
    assert len(found) == min(frames, most)
    steps = np.diff(found)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def volume(frames: int, tmp_name: str = "x") -> Volume:
    from pathlib import Path

    def read(index: int) -> Raw:
        return np.full((40, 80), 255 if index == frames - 1 else 100, np.uint8)

    return Volume(
        path=Path(tmp_name), format="tiff-stack", frames=frames, rows=40, columns=80, dtype="uint8", intensity=linear(0, 255),
        read=read, order=Fact("file order", "order of the pages"),
    )  # fmt: skip


@pytest.mark.parametrize("frames", [1, 7, MOST + 40])
def test_every_b_scan_has_its_place_on_the_sheet(frames: int) -> None:
    sheet = contact_sheet(volume(frames))
    shown = min(frames, MOST)
    across = (sheet.width - GAP) // (WIDTH + GAP)
    assert across * -(-shown // across) >= shown
    pixels = np.asarray(sheet)
    height = WIDTH * 40 // 80
    assert sheet.mode == "L"
    assert (pixels == 100).sum() >= (shown - 1) * WIDTH * height * 0.9
    assert (pixels == 255).sum() >= WIDTH * height * 0.9  # the last one is there too
