"""Tables of very many rows: one result in any block and any order, faults by their line, what is kept outside of memory."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octc.bench.parity import claim
from octc.bench.parity.tables import join, read, spool, texts
from octc.bench.parity.tables.compare import compare_files
from octc.bench.parity.tables.join import Table, numbers_of_keys, read_answers
from octc.bench.parity.tables.read import open_table
from octc.bench.parity.tables.room import needed_mib
from octc.bench.parity.tables.spool import Spool, workspace
from octc.bench.parity.tables.texts import Names, Texts, ranks_of
from octc.core.errors import OctcError
from octc.core.files import canonical_json, sha256_bytes
from octc.schemas.comparing import TableOptions
from octc.stats import metrics, outcome
from octc.stats.cluster_bootstrap import cluster_index, dense_index, named_images
from octc.stats.comparison import compare_logits
from octc.stats.patients import patient_ids
from octc.stats.test_plan import ParityOptions

N, CLASSES = 200, ("a", "b", "c")
GATE = ParityOptions(margin=10, class_margin=30, bootstrap=1000)
SIZES = (1, 7, 1 << 20)  # rows of a block: one, some, all


def lines_of(seed: int, order: Sequence[int] = range(N), first: str = "") -> list[str]:
    """A CSV table with three probabilities; a fifth of the rows has no patient."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % 3
    told = np.where(rng.random(N) < 0.05, (labels + 1) % 3, labels)
    values = rng.uniform(0.01, 0.1, (N, 3))
    values[np.arange(N), told] = 0.9
    values /= values.sum(axis=1, keepdims=True)
    rows = [
        f"{first}i{i},{CLASSES[labels[i]]},{f'p{i // 3}' if i % 5 else ''}," + ",".join(f"{v:.6f}" for v in values[i])
        for i in order
    ]
    return ["id,truth,patient,p_a,p_b,p_c", *rows]


def tables(folder: Path, before: list[str], after: list[str]) -> tuple[Path, Path]:
    paths = folder / "a.csv", folder / "b.csv"
    for path, lines in zip(paths, (before, after), strict=True):
        path.write_text("\n".join(lines) + "\n")
    return paths


def in_blocks(patch: pytest.MonkeyPatch, rows: int) -> None:
    """Everything that is done in blocks, in blocks of so many rows; and (small ones) with files in place of memory."""
    for module in (read, join, texts):
        patch.setattr(module, "ROWS", rows)
    for module in (metrics, outcome):
        patch.setattr(module, "BLOCK", rows)
    patch.setattr(claim, "IDS", rows)
    patch.setattr(outcome, "COLUMNS", rows)
    patch.setattr(spool, "HELD", 8 << 20 if rows > N else 16)


def without_rounding(document: dict[str, Any]) -> dict[str, Any]:
    """Without the one mean that is added up block by block."""
    return {**document, "agreement": {**document["agreement"], "dlogit_mean": round(document["agreement"]["dlogit_mean"], 12)}}


@pytest.mark.parametrize("size", SIZES)
def test_neither_the_order_of_the_rows_nor_the_size_of_a_block_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    plain = compare_files(*tables(tmp_path, lines_of(1), lines_of(2)), gate=GATE)
    expected = plain.to_json()
    rng = np.random.default_rng(size)
    orders = [rng.permutation(N).tolist() for _ in range(2)]
    in_blocks(monkeypatch, size)
    found = compare_files(*tables(tmp_path, lines_of(1, orders[0]), lines_of(2, orders[1])), gate=GATE)
    document = found.to_json()
    for side in ("reference", "candidate"):  # the file is another one
        document[side]["artifact_sha256"] = expected[side]["artifact_sha256"]
    assert without_rounding(document) == without_rounding(expected)
    assert str(found) == str(plain)
    assert (expected["set"]["n"], expected["set"]["images_without_patient"]) == (N, N // 5)


FAULTS: dict[str, tuple[Callable[[list[str]], None], str, str, str | None]] = {
    "a cell that is no number": (lambda rows: rows.__setitem__(151, "i150,a,p50,high,0,0"), "OCT-E209", "'high'", ":152"),
    "the first of two faults": (
        lambda rows: rows.__setitem__(slice(101, 103), ["i100,b,p33,0.1,0.8,x", "i101,c,p33,y,0,1"]), "OCT-E209", "'x'", ":102",
    ),
    "a row without a key": (lambda rows: rows.__setitem__(190, ",a,p,1,0,0"), "OCT-E209", "without a key", ":191"),
    "a row of other cells": (lambda rows: rows.__setitem__(190, "i189,a"), "OCT-E209", "2 cells", ":191"),
    "empty lines and a cell of two lines": (
        lambda rows: rows.__setitem__(slice(100, 102), ['"i99",a,"p\n33",0.8,0.1,0.1', "", "i100,b,p33,what,0,0"]), "OCT-E209",
        "'what'", ":104",
    ),
    "a key that stands twice": (lambda rows: rows.append(rows[3]), "OCT-E706", "1 keys stand twice in b.csv: i2", None),
    "another truth": (lambda rows: rows.__setitem__(199, "i198,c,p66,0,0,1"), "OCT-E706", "1 rows: i198", None),
    "a row that is not there": (lambda rows: rows.pop(198), "OCT-E706", "1 only in a.csv: i197", None),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("size", SIZES)
def test_a_fault_in_a_later_block_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, size: int
) -> None:
    spoil, code, words, place = FAULTS[fault]
    rows = lines_of(2)
    spoil(rows)
    in_blocks(monkeypatch, size)
    with pytest.raises(OctcError) as error:
        compare_files(*tables(tmp_path, lines_of(1), rows), gate=GATE, options=TableOptions(cluster="none"))
    assert (error.value.code, words in error.value.message) == (code, True), error.value.message
    assert (error.value.place or "").endswith(f"b.csv{place or ''}")


@pytest.mark.parametrize("size", SIZES)
def test_a_fault_before_a_line_that_cannot_be_read_is_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    rows = ["id,correct", *(f"{i},{i % 2}" for i in range(60)), "60,maybe", "61,1", "62", "63,1"]
    in_blocks(monkeypatch, size)
    with pytest.raises(OctcError, match="maybe") as error:
        compare_files(*tables(tmp_path, rows, rows), gate=GATE)
    assert (error.value.place or "").endswith("a.csv:62")


def test_a_candidate_that_names_patients_and_no_truth_contradicts_nothing(tmp_path: Path) -> None:
    plain = compare_files(*tables(tmp_path, lines_of(1), lines_of(2)), gate=GATE)
    bare = [",".join(part for k, part in enumerate(line.split(",")) if k != 1) for line in lines_of(2)]
    again = compare_files(*tables(tmp_path, lines_of(1), bare), gate=GATE)
    assert str(again) == str(plain)


@pytest.mark.parametrize("size", SIZES)
def test_scores_that_are_not_finite_are_named_in_any_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rows = lines_of(2)
    rows[181], rows[20] = "i180,a,p60,nan,0.5,0.5", "i19,b,p6,0.5,,0.5"
    in_blocks(monkeypatch, size)
    found = compare_files(*tables(tmp_path, lines_of(1), rows), gate=GATE)
    assert (found.word, found.report.not_finite) == ("fail", ("i180", "i19"))


@pytest.mark.parametrize("size", SIZES)
def test_lines_of_json_with_a_number_that_no_float_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    in_blocks(monkeypatch, size)
    paths = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path, last in zip(paths, (1, 10**400), strict=True):
        rows = [{"id": i, "truth": i % 2, "p_0": 0.5 if i < 60 else last, "p_1": 0.5} for i in range(61)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(OctcError, match="is no number") as error:
        compare_files(*paths, gate=GATE)
    assert (error.value.code, (error.value.place or "").endswith("b.jsonl:61")) == ("OCT-E209", True)


def test_a_table_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path, _ = tables(tmp_path, lines_of(1), [])
    with workspace() as make:
        table = Table(open_table(path), ("id",), make)
        table.read(("truth",), lambda block: lambda: None)
        with path.open("a") as stream:
            stream.write(lines_of(1, [0], first="new")[1] + "\n")
        with pytest.raises(OctcError, match="200 rows were read, and the next time 201") as error:
            table.read(("truth",), lambda block: lambda: None)
    assert error.value.code == "OCT-E209"


# texts as numbers

TEXTS = st.lists(st.text(st.sampled_from("\0ab\x7fé\ud800\U0001f600")) | st.text("a", min_size=5, max_size=40), max_size=30)


def column(made: Spool, values: Sequence[str], size: int = 4) -> Texts:
    found = Texts(made)
    for start in range(0, len(values), size):
        found.extend(values[start : start + size])
    return found


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS, st.sampled_from(SIZES), st.sampled_from(["", "/images/of/the/clinic/"]))
def test_ranks_are_the_order_of_the_texts(one: list[str], other: list[str], size: int, first: str) -> None:
    one, other = ([first + text for text in values] for values in (one, other))
    with pytest.MonkeyPatch.context() as patch, workspace() as make:
        in_blocks(patch, size)
        columns = [column(make(), one), column(make(), other)]
        ranks = [rank.tolist() for rank in ranks_of(columns)]
        everything = sorted([*one, *other])
        assert ranks == [[everything.index(text) for text in values] for values in (one, other)]
        assert list(Names(columns[0], np.arange(len(one))[::-1])) == one[::-1]


def test_keys_of_different_length_with_long_beginnings_in_common(tmp_path: Path) -> None:
    """Short ones end where others go on; the longest decides no more than it has to."""
    keys = ["x" * n for n in range(1, 60)] + ["x" * 58 + "y" * 5000, "", "x" * 7 + "\0", "x" * 7 + "a", "x" * 14]
    with workspace() as make:
        found = ranks_of([column(make(), keys)])[0]
    assert [keys[i] for i in np.argsort(found, kind="stable")] == sorted(keys)
    assert found[13] == found[-1]  # the one that stands twice


def test_keys_that_stand_twice_are_named_in_their_order(tmp_path: Path) -> None:
    path, _ = tables(tmp_path, [*lines_of(1), *lines_of(1, [9, 100, 9])[1:]], [])
    with workspace() as make:
        table = Table(open_table(path), ("id",), make)
        read_answers(table, join.Answer("probabilities", ("p_a", "p_b", "p_c"), CLASSES))
        with pytest.raises(OctcError, match=r"2 keys stand twice in a.csv: i100, i9$"):
            numbers_of_keys([table])


# what is kept outside of memory


def test_a_spool_gives_what_was_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spool, "HELD", 10)
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    data = bytes(range(100))
    with workspace() as make:
        own = make()
        assert bytes(own.view()) == b""
        for start in range(0, 100, 7):
            own.write(data[start : start + 7])
            assert os.name != "posix" or not list(tmp_path.iterdir())  # it has no name, and is gone with the process
        assert (own.read(3, 20), own.view()[90:95], bytes(own.view())) == (data[3:23], data[90:95], data)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_a_comparison_fails_or_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(spool.tempfile, "tempdir", str(place))
    monkeypatch.setattr(spool, "HELD", 16)
    rows = lines_of(2)
    rows[150] = "i149,c,p,high,0,0"
    paths = tables(tmp_path, lines_of(1), rows)
    with pytest.raises(OctcError, match="high"):
        compare_files(*paths, gate=GATE)
    assert not list(place.iterdir())

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("octc.bench.parity.tables.compare.read_answers", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare_files(*tables(tmp_path, lines_of(1), lines_of(2)), gate=GATE)
    assert not list(place.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_an_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "HELD", 16)
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("w+b"))  # noqa: SIM115
    with pytest.raises(OctcError) as error:
        compare_files(*tables(tmp_path, lines_of(1), lines_of(2)), gate=GATE)
    assert (error.value.code, "TMPDIR" in error.value.hint) == ("OCT-E904", True)
    assert error.value.place == spool.tempfile.gettempdir()


def test_no_temporary_folder_is_an_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(spool, "HELD", 16)
    monkeypatch.setattr(spool.tempfile, "gettempdir", none)
    with pytest.raises(OctcError) as error:
        compare_files(*tables(tmp_path, lines_of(1), lines_of(2)), gate=GATE)
    assert (error.value.code, "TMPDIR" in error.value.hint) == ("OCT-E906", True)


# statistics in blocks


def test_patients_as_numbers_are_patients_by_name() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(-1, 40, 300)
    names = [None if k < 0 else f"p{k}" for k in numbers.tolist()]
    assert np.array_equal(cluster_index(numbers), cluster_index(names))  # type: ignore[arg-type]
    assert np.array_equal(named_images(numbers), named_images(names))
    assert patient_ids(numbers) == patient_ids(names)
    nobody = np.full(3, -1)
    assert (cluster_index(nobody), patient_ids(nobody)) == (None, patient_ids([None] * 3))
    sparse = rng.choice(10**9, 50)[rng.integers(0, 50, 300)]
    assert np.array_equal(dense_index(sparse), np.unique(sparse, return_inverse=True)[1])
    assert np.array_equal(dense_index(numbers + 1), np.unique(numbers, return_inverse=True)[1])


@pytest.mark.parametrize("whose", ["nobody", "patients"])
@pytest.mark.parametrize("rows", [300, 5400])  # below and above the limit from which large sets are treated apart
def test_the_size_of_a_block_changes_no_number(monkeypatch: pytest.MonkeyPatch, whose: str, rows: int) -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 4, rows)
    logits = [(3 * np.eye(4)[labels] + rng.normal(0, 1, (rows, 4))).astype(np.float32)[:, None] for _ in range(2)]
    patients = np.full(rows, -1) if whose == "nobody" else rng.integers(0, rows // 3, rows)
    ids = [f"{i:05d}" for i in rng.permutation(rows)]
    names = [*"abcd"]
    options = ParityOptions(bootstrap=1000)
    plain = compare_logits(ids, labels, patients, logits[0], logits[1], names, options)
    in_blocks(monkeypatch, 101)
    again = compare_logits(ids, labels, patients, logits[0], logits[1], names, options)
    assert again.agreement.pop("dlogit_mean") == pytest.approx(plain.agreement.pop("dlogit_mean"), rel=1e-12)
    assert again == plain


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_checksum_of_the_rows_is_that_of_their_list(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(claim, "IDS", size)
    for ids in ([], ["a"], [f'é"{i}\ud800' for i in range(10)]):
        assert claim.ids_sha256(ids) == sha256_bytes(canonical_json(ids))


# how much is held


@pytest.mark.slow
def test_memory_stays_below_what_is_asked_for(tmp_path: Path) -> None:
    """Peak of a process of its own, for two sizes: below the estimate, and no row costs more than it says."""
    code = (
        "import sys; from octc.machine.memory import rss_peak_mib; "  # ru_maxrss begins with what the parent held
        "from octc.bench.parity.tables.compare import compare_files; from octc.stats.test_plan import ParityOptions; "
        "found = compare_files(*sys.argv[1:], gate=ParityOptions(bootstrap=1000)); print(rss_peak_mib(), found.report.n)"
    )
    held = []
    for rows in (60_000, 240_000):
        rng = np.random.default_rng(rows)
        labels = rng.integers(0, 4, rows)
        paths = tmp_path / f"a{rows}.csv", tmp_path / f"b{rows}.csv"
        for path in paths:
            values = rng.dirichlet(np.ones(4), rows) * 0.2 + 0.8 * np.eye(4)[labels]
            lines = (
                f"i{i:07d},{k},p{i // 4},{a:.5f},{b:.5f},{c:.5f},{d:.5f}\n"
                for i, (k, (a, b, c, d)) in enumerate(zip(labels.tolist(), values.tolist(), strict=True))
            )
            path.write_text("id,truth,patient,p_0,p_1,p_2,p_3\n" + "".join(lines))
        out = subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True, capture_output=True, text=True)
        peak, n = map(float, out.stdout.split())
        assert n == rows
        assert peak <= needed_mib(rows, 4)
        held.append(peak)
    assert held[1] - held[0] <= needed_mib(240_000, 4) - needed_mib(60_000, 4)
    assert all(a < b for a, b in pairwise(held))
