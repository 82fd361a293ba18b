"""The table of tolerances, and what the recorded picture proves."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.runtimes.golden import TOLERANCES, check_input, compare_logits, replay, require_golden
from octc.store.artifacts import Golden, read_artifact
from octc.store.runs import Run
from tests.stand_ins import FakeRuntime

REFERENCE = np.array([[4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [1.0, 0.0, 4.0], [4.0, 3.9, 0.0]], np.float32)


@pytest.mark.parametrize(("row", "inside", "outside"), [("K1", 3e-4, 6e-4), ("K4", 0.035, 0.05), ("K7", 0.07, 0.3)])
def test_limits_of_a_row(row: str, inside: float, outside: float) -> None:
    """The range of these logits is 4: a difference of `inside` is below the row's share of it."""
    known = TOLERANCES[row]
    away = np.zeros_like(REFERENCE)
    away[0, 2] = 1.0
    assert compare_logits(REFERENCE, REFERENCE, known).ok
    good = compare_logits(REFERENCE + inside * away, REFERENCE, known)
    assert good.ok
    assert good.delta_over_s == pytest.approx(inside / 4, rel=1e-2)
    assert not compare_logits(REFERENCE + outside * away, REFERENCE, known).ok


def test_a_flip_of_two_nearly_equal_classes_is_excused_for_float_rows_only() -> None:
    close = REFERENCE.copy()
    close[3] = (4.0, 4.0 - 1e-4, 0.0)
    flipped = close.copy()
    flipped[3] = (4.0 - 1e-4, 4.0, 0.0)
    report = compare_logits(flipped, close, TOLERANCES["K1"])
    assert (report.ok, report.near_ties, report.agreement) == (True, 1, 0.75)
    assert not compare_logits(flipped, close, TOLERANCES["K7"]).ok


def test_a_flip_of_clear_classes_is_never_excused() -> None:
    flipped = REFERENCE.copy()
    flipped[3] = (3.9, 4.0, 0.0)
    report = compare_logits(flipped, REFERENCE, replace(TOLERANCES["K1"], delta_over_s=0.01, kl_mean=1.0))
    assert (report.ok, report.near_ties) == (False, 0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_not_finite_fail_and_say_so(run: Run, wrong: float) -> None:
    found = REFERENCE.copy()
    found[1, 1] = wrong
    report = compare_logits(found, REFERENCE, TOLERANCES["K7"])
    assert (report.ok, report.delta_over_s, report.kl_mean) == (False, None, None)
    with pytest.raises(OctcError, match="not finite") as caught:
        require_golden(report, read_artifact(run.artifacts / "onnx-int8"))
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E506", 1)


def test_a_reference_without_any_range() -> None:
    flat = np.ones((2, 3), np.float32)
    assert compare_logits(flat, flat, TOLERANCES["K1"]).ok
    assert not compare_logits(flat + np.float32(1e-3), flat, TOLERANCES["K1"]).ok


def golden_of(pre: Preprocess) -> Golden:
    stream = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (90, 120), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG")
    picture = np.frombuffer(stream.getvalue(), np.uint8)
    inputs = np.zeros((8, pre.channels, pre.size, pre.size), np.uint8)
    return Golden(inputs, np.tile([1.0, 0.0], (8, 1)).astype(np.float32), picture, pre.prepare(Image.fromarray(pixels)))


def test_decoding_and_resizing_must_give_the_recorded_bytes() -> None:
    pre = Preprocess(32)
    golden = golden_of(pre)
    check_input(golden, pre)
    changed = golden.source_input.copy()
    changed[0, 0, 5, 5] ^= 3
    for other, text in ((changed, "1 of 1024 values, by up to"), (changed[:, :, :16], "was recorded")):
        with pytest.raises(OctcError, match=text) as caught:
            check_input(replace(golden, source_input=other), pre)
        assert (caught.value.code, caught.value.exit_code) == ("OCT-E508", 3)
        assert "Pillow" in caught.value.hint
    with pytest.raises(OctcError, match="values, by up to"):  # another filter is another preprocessing
        check_input(golden, replace(pre, resize="bicubic"))
    with pytest.raises(OctcError) as damaged:
        check_input(replace(golden, source_png=golden.source_png[:40]), pre)
    assert damaged.value.exit_code == 3


def test_golden_images_of_another_network_are_refused(run: Run) -> None:
    artifact = read_artifact(run.artifacts / "onnx-fp32")
    runtime = FakeRuntime(lambda batch: np.zeros((len(batch), 4)))
    with pytest.raises(OctcError, match="golden images and logits have shapes") as caught:
        replay(runtime, golden_of(Preprocess(32)), artifact)
    assert caught.value.code == "OCT-E502"
    assert runtime.calls == []
