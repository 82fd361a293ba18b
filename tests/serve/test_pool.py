"""The pool: what is put together, what is refused, what is late."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.imaging.preprocess import Float32, UInt8
from octc.schemas.requests import ServeOptions
from octc.serve import models
from octc.serve.models import Opened, Share, open_models, share_of
from octc.serve.pool import Pool, Ran
from octc.store.artifacts import read_golden
from tests.stand_ins import FakeRuntime
from tests.tiny_artifacts import artifact_folder


class Slow:
    """An engine that answers the mean of each image once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.called = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, batch: UInt8) -> Float32:
        self.sizes.append(len(batch))
        self.called.set()
        assert self.may.wait(30)
        if batch.max() == 255:
            raise OctcError("OCT-E502", "broken", hint="none")
        return batch.reshape(len(batch), -1).mean(axis=1, dtype=np.float32)[:, None]


def opened(engine: Any, sizes: tuple[int, ...] = (1, 2, 4, 8), alone: Any = None) -> Opened:
    golden: Any = None
    artifact: Any = None
    return Opened("m", "v", "s", Path(), artifact, golden, (engine, engine), sizes, exact=True, alone=alone)


def images(*values: int) -> UInt8:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 4, 4), np.uint8)


def test_what_waits_is_put_together_and_each_gets_its_own() -> None:
    engine, heard = Slow(), list[Ran]()
    model, pool = opened(engine), Pool(1, queue=64, heard=heard.append)
    first = pool.submit(model, images(1), timeout=30)
    assert engine.called.wait(30)  # the lane is busy from here on
    others = [pool.submit(model, images(*values), timeout=30) for values in ((2, 3), (4,), (5, 6, 7), (8,))]
    engine.may.set()
    assert first.result(30).ravel().tolist() == [1]
    assert [one.result(30).ravel().tolist() for one in others] == [[2, 3], [4], [5, 6, 7], [8]]
    assert engine.sizes == [1, 4, 2, 1]
    pool.close()
    assert [(one.images, one.requests) for one in heard] == [(1, 1), (4, 3), (2, 1), (1, 1)]


def test_a_model_that_is_not_exact_in_batches_is_run_one_by_one() -> None:
    engine = Slow()
    engine.may.set()
    model, pool = opened(engine, (1,)), Pool(1, queue=64)
    assert pool.submit(model, images(1, 2, 3), timeout=30).result(30).ravel().tolist() == [1, 2, 3]
    assert set(engine.sizes) == {1}
    pool.close()


def test_more_than_may_wait_is_refused_and_nothing_else_is_lost() -> None:
    engine = Slow()
    model, pool = opened(engine), Pool(1, queue=4)
    kept = [pool.submit(model, images(1), timeout=30)]
    assert engine.called.wait(30)
    kept += [pool.submit(model, images(k), timeout=30) for k in range(2, 6)]
    with pytest.raises(OctcError) as caught:
        pool.submit(model, images(9), timeout=30)
    assert caught.value.code == "OCT-E908"
    assert pool.retry_after() >= 1
    engine.may.set()
    assert [one.result(30).item() for one in kept] == [1, 2, 3, 4, 5]
    pool.close()


def test_what_is_late_is_not_run() -> None:
    engine = Slow()
    model, pool = opened(engine), Pool(1, queue=8)
    first = pool.submit(model, images(1), timeout=30)
    assert engine.called.wait(30)
    late, gone = pool.submit(model, images(2), timeout=0.01), pool.submit(model, images(3), timeout=30)
    gone.cancel()
    time.sleep(0.05)
    engine.may.set()
    assert first.result(30).item() == 1
    with pytest.raises(OctcError) as caught:
        late.result(30)
    assert caught.value.code == "OCT-E909"
    pool.close()
    assert sum(engine.sizes) == 1
    assert pool.waiting == 0


def test_an_error_of_the_engine_reaches_whoever_asked_and_the_lane_goes_on() -> None:
    engine = Slow()
    engine.may.set()
    model, pool = opened(engine), Pool(1, queue=8)
    with pytest.raises(OctcError, match="broken"):
        pool.submit(model, images(255), timeout=30).result(30)
    assert pool.submit(model, images(7), timeout=30).result(30).item() == 7
    pool.close()
    with pytest.raises(OctcError):
        pool.submit(model, images(7), timeout=30)


def test_the_delay_waits_for_others_and_not_longer() -> None:
    engine = Slow()
    engine.may.set()
    model, pool = opened(engine), Pool(1, queue=8, delay=0.2)
    start = time.monotonic()
    both = [pool.submit(model, images(k), timeout=30) for k in (1, 2)]
    assert [one.result(30).item() for one in both] == [1, 2]
    assert 0.1 < time.monotonic() - start < 5
    assert engine.sizes == [2]
    pool.close()


def test_a_request_that_is_alone_has_the_engine_with_the_most_threads() -> None:
    engine, wide = Slow(), Slow()
    engine.may.set()
    model, pool = opened(engine, alone=wide), Pool(2, queue=64)
    first = pool.submit(model, images(1), timeout=30)
    assert wide.called.wait(30)
    second = pool.submit(model, images(2), timeout=30)  # the wide one runs: this one is not alone
    assert second.result(30).item() == 2
    wide.may.set()
    assert first.result(30).item() == 1
    assert pool.submit(model, images(3), timeout=30).result(30).item() == 3
    assert (wide.sizes, engine.sizes) == ([1, 1], [1])
    pool.close()


def test_a_request_is_not_alone_while_another_is_decoded() -> None:
    engine, wide, working = Slow(), Slow(), [2]
    engine.may.set()
    wide.may.set()
    model, pool = opened(engine, alone=wide), Pool(2, queue=64, working=lambda: working[0])
    assert pool.submit(model, images(1), timeout=30).result(30).item() == 1
    working[0] = 1
    assert pool.submit(model, images(2), timeout=30).result(30).item() == 2
    assert (wide.sizes, engine.sizes) == ([1], [1])
    pool.close()


def test_the_share_of_each_engine_follows_from_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ((1, (1, 1, 1)), (2, (2, 1, 2)), (4, (4, 1, 4)), (8, (4, 2, 4)), (16, (4, 4, 4)), (64, (16, 4, 4)))
    for usable, share in known:
        monkeypatch.setattr(models, "usable_threads", lambda usable=usable: (usable, "quota"))
        assert share_of(ServeOptions()) == Share(*share, usable)
        assert share_of(ServeOptions(threads=1)) == Share(usable, 1, 1, 1)
        assert share_of(ServeOptions(instances=1)).lanes == 1
        with pytest.raises(OctcError):
            share_of(ServeOptions(instances=usable + 1))


def test_lanes_that_share_one_engine_take_turns() -> None:
    """Also a request that is alone: nobody else runs its engine meanwhile."""
    engine, most, running = Slow(), [0], [0]

    def counted(batch: UInt8) -> Float32:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.002)
        found = engine(batch)
        running[0] -= 1
        return found

    for engines in ((counted,), (counted, counted)):
        model = replace(opened(engine, (1,)), runtimes=engines)
        pool = Pool(4, queue=64)
        first = pool.submit(model, images(1), timeout=30)
        assert engine.called.wait(30)
        others = [pool.submit(model, images(k), timeout=30) for k in range(2, 20)]
        engine.may.set()
        assert [one.result(30).item() for one in (first, *others)] == list(range(1, 20))
        pool.close()
        assert most[0] == 1


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> list[FakeRuntime]:
    """Engines whose last bits follow from their threads, above SEEN, on a machine of any size."""
    made: list[FakeRuntime] = []

    def open_fake(_folder: Path, artifact: Any, *, threads: int) -> FakeRuntime:
        def compute(batch: UInt8) -> Float32:
            logits = np.stack([golden[bytes(image)] for image in batch]).astype(np.float32)
            return logits * np.float32(1 + 1e-6 * (threads > SEEN))

        kept = read_golden(artifact_folder("onnx-fp32"))
        golden = {bytes(image): row for image, row in zip(kept.inputs, kept.logits, strict=True)}
        made.append(FakeRuntime(compute, artifact.name, threads=threads))
        return made[-1]

    monkeypatch.setattr(models, "open_runtime", open_fake)
    return made


SEEN = 4


@pytest.mark.parametrize(("usable", "threads"), [(2, [1, 1, 2]), (4, [1, 1, 1, 1, 4]), (8, [8]), (16, [16])])
def test_where_threads_are_seen_in_the_bits_one_engine_has_those_of_predict(
    threaded: list[FakeRuntime], monkeypatch: pytest.MonkeyPatch, usable: int, threads: list[int]
) -> None:
    """Its logits are those of `octc predict`, which has a thread for each processor, and no engines beside it hold memory."""
    monkeypatch.setattr(models, "usable_threads", lambda: (usable, "quota"))
    (found,) = open_models([artifact_folder("onnx-fp32")], ServeOptions())
    kept = [one for one in threaded if one._compute is not None]  # not closed
    assert sorted(one.facts["threads"] for one in kept) == threads
    assert {id(one) for one in kept} == {id(one) for one in (*found.runtimes, *([found.alone] if found.alone else []))}
    found.close()
    if len(threads) == 1:
        with pytest.raises(OctcError) as caught:
            open_models([artifact_folder("onnx-fp32")], ServeOptions(instances=2))
        assert (caught.value.code, all(one._compute is None for one in threaded)) == ("OCT-E104", True)
        (found,) = open_models([artifact_folder("onnx-fp32")], ServeOptions(instances=2, threads=usable // 2))
        assert [one.facts["threads"] for one in found.runtimes] == [usable // 2] * 2
        found.close()
