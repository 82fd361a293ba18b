"""Drift by ranks and bets: laws, false alarms under many looks, a change that is found; the store; sketches of manifests."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octc.core.errors import OctcError
from octc.schemas.common import builtins
from octc.stats.drift import alarm_at, evidence, ranks, starts, together
from octc.stats.reference_sketch import KEY, rounded, sketch, stated_sketch
from octc.store.monitor_store import Replay, Seen, Truth, open_store


@given(st.integers(0, 2**31), st.sampled_from(["normal", "few values", "constant"]))
@settings(max_examples=30, deadline=None)
def test_laws_of_ranks(seed: int, kind: str) -> None:
    """Within 0 and 1; a monotone map of all values changes none; the largest of all has a rank near 0."""
    rng = np.random.default_rng(seed)
    values = {"normal": rng.normal(size=60), "few values": rng.integers(0, 3, 60) + 0.0, "constant": np.ones(60)}[kind]
    draws = rng.random(40)
    found = ranks(values[20:].tolist(), values[:20].tolist(), draws)
    assert ((found > 0) & (found < 1)).all()
    assert np.array_equal(found, ranks(np.exp(values[20:]).tolist(), np.exp(values[:20]).tolist(), draws))
    assert ranks([99.0], values.tolist(), [0.5])[0] == pytest.approx(0.5 / 61)


def test_nan_has_no_rank_and_nobody_is_ranked_against_it() -> None:
    draws = [0.3, 0.6, 0.9]
    found = ranks([1.0, math.nan, 2.0], [math.nan, 0.0], draws)
    assert found[1] == 0.6
    assert found[2] == pytest.approx(0.9 / 3)
    assert np.isfinite(evidence(found)).all()


def test_the_first_bet_is_fair_and_the_expected_capital_stays_one() -> None:
    rng = np.random.default_rng(0)
    paths = evidence(rng.random((4000, 60)))
    assert paths[:, 0] == pytest.approx(0.0)
    capital = np.exp(paths[:, 30])
    assert capital.mean() == pytest.approx(1.0, abs=4 * capital.std() / math.sqrt(4000))


def test_false_alarms_at_any_look_are_as_rare_as_stated() -> None:
    """300 boxes, 3 streams that depend on each other, 150 eyes, a reference of 40, a look after every eye."""
    rng = np.random.default_rng(1)
    streams = rng.normal(size=(300, 1, 190)) + rng.normal(size=(300, 3, 190))
    found = [[ranks(one[40:].tolist(), one[:40].tolist(), rng.random(150)) for one in box] for box in streams]
    false = sum(alarm_at(path, 0.05) is not None for path in together(evidence(np.array(found))))
    assert false / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_streams_that_rise_together_count_no_more_than_one() -> None:
    """18 copies of one stream are as rich as it is: all but a factor of 18 that pays for having looked at so many."""
    path = np.log([1.0, 50.0, 1799.0, 1801.0])
    assert together(np.tile(path, (18, 1))) == pytest.approx(path - np.log(18))
    assert alarm_at(together(np.tile(path, (18, 1))), 0.01) == 4
    assert alarm_at(together(np.stack([path, np.zeros(4)])), 0.01) == 3


@pytest.mark.parametrize("after", [0, 60, 200])
def test_a_change_is_found_whenever_it_comes(after: int) -> None:
    rng = np.random.default_rng(2)
    values = np.r_[rng.normal(size=after), rng.normal(1.5, 1, 120)]
    path = evidence(ranks(values.tolist(), rng.normal(size=100).tolist(), rng.random(len(values))))
    at = alarm_at(path)
    assert at is not None
    assert after < at <= after + 80


def test_bettors_begin_often_at_first_and_rarely_later() -> None:
    found = starts(10_000)
    assert found[:3] == [0, 25, 50]
    assert len(found) < 130
    assert max(b - a for a, b in pairwise(found)) <= 10_000 // 20


def row(number: int, **more: object) -> Seen:
    sketched = {"confidence": 0.9, **more}
    return Seen("2026-11-30", "d" * 64, f"{number:032x}", "CNV", 0.9, sketched)  # type: ignore[arg-type]


def test_a_store_only_grows_and_counts_a_picture_once(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite", make=True) as store:
        assert store.add([row(1), row(2), row(1)]) == 2
        assert (
            store.add([row(2), Truth("2026-11-30", "d" * 64, ("k",), 1.0, 3), Replay("2026-11-30", "d" * 64, True, 0.1)]) == 2
        )
        assert store.key_of("x") == store.key_of("x") != store.key_of("y")
        draws = [store.draw(f"a:{k}") for k in range(2000)]
    assert np.mean(draws) == pytest.approx(0.5, abs=0.03)
    with open_store(tmp_path / "s.sqlite") as store:
        assert [one.key for one in store.seen("d" * 64)] == [row(1).key, row(2).key]
        assert store.seen("other") == []
        assert len(store.truth("d" * 64)) == len(store.replays("d" * 64)) == 1
    bare = sqlite3.connect(tmp_path / "s.sqlite")
    for words in ("DELETE FROM seen", "UPDATE seen SET label = 'x'", "DELETE FROM meta", "UPDATE truth SET correct = 0"):
        with pytest.raises(sqlite3.DatabaseError, match="only added"):
            bare.execute(words)
    bare.close()


def test_a_value_that_is_no_number_does_not_come_in(tmp_path: Path) -> None:
    assert [rounded(value) for value in (math.nan, math.inf, None, 0.123456)] == [None, None, None, 0.123]
    with open_store(tmp_path / "s.sqlite", make=True) as store:
        with pytest.raises(OctcError):
            store.add([row(1), row(2, mean=math.nan)])
        assert store.seen("d" * 64) == []  # all of them or none


KILLED = """
import sys
from octc.store.monitor_store import Seen, open_store
from pathlib import Path
with open_store(Path(sys.argv[1]), make=True) as store:
    number = 0
    while True:
        store.add([Seen("2026-11-30", "d", f"{number}-{k}", "CNV", 0.9, {"confidence": 0.9}) for k in range(5)])
        number += 1
        print(number, flush=True)
"""


def test_what_was_written_is_there_after_a_kill(tmp_path: Path) -> None:
    """The process ends in the middle of a transaction: rows that were said to be written are there, none by half."""
    path = tmp_path / "s.sqlite"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 5:
            pass
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        said = int(([5, *map(int, process.stdout.read().split())])[-1])
    with open_store(path) as store:
        found = store.seen("d")
        store.add([row(1)])
    assert len(found) >= 5 * said
    assert len(found) % 5 == 0


def test_a_store_whose_log_is_cut_short_by_a_power_loss_holds_whole_transactions(tmp_path: Path) -> None:
    """The last bytes of the write-ahead log are missing, or are others, at every place where a disk may have stopped: every
    transaction before them is there, none by half, and rows can be added."""
    whole = tmp_path / "whole.sqlite"
    open_store(whole, make=True).close()
    with open_store(whole, make=True) as store:
        for number in range(8):
            store.add([row(10 * number + k) for k in range(5)])
        data, log = whole.read_bytes(), Path(f"{whole}-wal").read_bytes()
    rng = np.random.default_rng(0)
    before = 40
    for cut in [len(log), *sorted(rng.integers(0, len(log), 24).tolist(), reverse=True), 0]:
        for tail in (b"", rng.bytes(min(4096, len(log) - cut))):
            place = tmp_path / f"{cut}-{len(tail)}.sqlite"
            place.write_bytes(data)
            Path(f"{place}-wal").write_bytes(log[:cut] + tail)
            with open_store(place) as store:
                kept = store.seen("d" * 64)
                assert [one.key for one in kept] == [row(10 * (k // 5) + k % 5).key for k in range(len(kept))]
                assert len(kept) % 5 == 0
                assert len(kept) <= before
                assert store.add([row(999)]) == 1
        before = len(kept)
    assert before == 0


@pytest.mark.parametrize("damage", ["cut", "noise", "other", "empty"])
def test_a_damaged_store_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path, make=True) as store:
        store.add([row(number) for number in range(500)])
    data = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        path.unlink()
        sqlite3.connect(path).execute("CREATE TABLE t (a)").connection.close()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\x07" * len(data))
    with pytest.raises(OctcError) as caught:
        open_store(path)
    assert caught.value.code == "OCT-E712"
    with pytest.raises(OctcError) as caught:
        open_store(tmp_path / "absent")
    assert caught.value.code == "OCT-E107"


def test_a_database_of_others_is_not_touched(tmp_path: Path) -> None:
    """Nor is its journal turned into another kind, as it is in a store."""
    path = tmp_path / "index.db"
    sqlite3.connect(path).execute("CREATE TABLE patients (name)").connection.close()
    before = path.read_bytes()
    with pytest.raises(OctcError) as caught:
        open_store(path, make=True)
    assert caught.value.code == "OCT-E712"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_sketch_survives_a_manifest_and_nonsense_does_not() -> None:
    rng = np.random.default_rng(3)
    sure = rng.uniform(0.5, 1, 400)
    right = rng.random(400) < sure
    found = sketch({"confidence": sure[:50].tolist()}, sure, right, [None] * 400, 0.025)
    assert found.gap_limits[0] <= 0 <= found.gap_limits[1]
    assert found.accuracy == right.mean()
    value = json.loads(json.dumps(builtins(found)))
    assert stated_sketch({KEY: value}) == found
    assert stated_sketch({}) is None
    assert (found.patients, found.known.words) == (None, "patients unknown")
    some = sketch({}, sure[:3], right[:3], ["a", "a", None], 0.025)
    assert (some.images, some.images_without_patient, some.patients) == (3, 1, 1)
    for wrong in ({"streams": {"no name": [1.0]}}, {"accuracy": 2.0}, {"patients": 0}, {"gap_limits": [1.0]}):
        with pytest.raises(OctcError) as caught:
            stated_sketch({KEY: {**value, **wrong}})
        assert caught.value.code == "OCT-E502"


@pytest.mark.parametrize("most", [0, 3000, 40_000])
def test_a_store_that_may_not_grow_is_no_broken_disk_and_loses_nothing(tmp_path: Path, most: int) -> None:
    """A limit of bytes a file (ulimit -f): what was added is there, and when there is room it goes on."""
    path, before = tmp_path / "seen.sqlite", resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = [Seen("2026-12-02", "a", f"k{number}", "x", 0.9, {"mean": 1.0}) for number in range(3)]
    with open_store(path, make=True) as store:
        assert store.add(rows[:1]) == 1

    def fill() -> None:
        with open_store(path, make=True) as store:
            for number in range(400):
                store.add([Seen("2026-12-02", "b", f"k{number}", "x", 0.9, {"mean": 1.0})])

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(OctcError) as caught:
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "OCT-E904"
    assert "ulimit -f" in caught.value.hint
    with open_store(path, make=True) as store:
        assert store.add(rows) == 2
        assert len(store.seen("a")) == 3
