"""Real engines in real processes with short profiles: what a bench writes, and the faults that are injected into it."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octc.bench.timing.findings import find_all
from octc.bench.timing.gates import judge
from octc.bench.timing.latency import Measure
from octc.bench.timing.plan import Subject
from octc.bench.timing.profiles import CANDIDATE
from octc.bench.timing.render import COLUMNS, head, reasons, table, tail
from octc.bench.timing.render_markdown import markdown
from octc.bench.timing.result import document, write_results
from octc.bench.timing.state import State
from octc.machine.host import host_name
from octc.store.artifacts import artifact_sha256
from octc.store.runs import Run
from tests.bench_tools import NOISE, TINY, benched, check_schema, new_state, pretend_quiet, tiny_options, with_teacher
from tests.tiny_artifacts import shared_run

INT8, FLOAT = "openvino-int8", "openvino-fp16"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return with_teacher(shared_run(tmp_path_factory), tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def quiet_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        pretend_quiet(patch)
        yield patch


@pytest.fixture(scope="module")
def whole(run: Run, quiet_module: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> State:
    """INT8, its float artifact and the teacher, with every comparison."""
    return benched(run, (INT8, FLOAT, "onnx-fp32", "tensorrt-int8"), tmp_path_factory.mktemp("whole"), teacher=True)


def test_every_row_has_numbers_and_follows_the_schema(whole: State, run: Run) -> None:
    found = document(whole, judge(whole), find_all(whole))
    check_schema(found)
    assert (found["status"], found["exit_code"], found["error"]) == ("PASS", 0, None)
    rows = {row["id"]: row for row in found["rows"]}
    for name in (INT8, FLOAT, "onnx-fp32"):
        for scope, batch in (("device", 1), ("end_to_end", 1), ("device", 8)):
            row = rows[f"{name}-{scope}-{batch}"]
            assert row["status"] == "VALID"
            assert row["n"] >= TINY.min_queries
            assert row["latency_ms"]["p50"]["value"] > 0
            assert row["memory"]["rss_peak_mib"]["value"] > row["memory"]["rss_delta_mib"]["value"] > 0
            assert (set(row.get("parts_ms", {})) == {"decode", "preprocess", "infer", "post", "read"}) == (
                scope == "end_to_end"
            )
        assert rows[f"{name}-host-1"]["reasons"] == ["same_as_device"]
    assert rows["tensorrt-int8-device-1"]["status"] == "NA"
    assert rows["teacher-torch-fp32-end_to_end-1"]["n"] >= TINY.reference_queries
    artifacts = {artifact["id"]: artifact for artifact in found["artifacts"]}
    assert artifacts[INT8]["precision_found"]["int8"] > 0
    assert artifacts[INT8]["runtime"]["precision_hint"] == "f32"
    assert artifacts[INT8]["file_mib"] < artifacts[FLOAT]["file_mib"]
    assert artifacts["teacher-torch-fp32"]["role"] == "reference"
    for artifact in artifacts.values():
        if artifact["target"] != "tensorrt":
            assert artifact["cold_start_ms"]["value"] > artifact["load_ms"]["value"] > 0
            assert artifact["verify"] == "not_verified"


def test_samples_on_disk_give_the_numbers_again(whole: State, run: Run, tmp_path: Path) -> None:
    row = whole.rows[f"{INT8}-device-1"]
    assert row.samples is not None
    assert not (run.artifacts / INT8 / row.samples[0]).exists(), "a bench that ends without a result leaves none"
    write_results(whole, judge(whole), find_all(whole), tmp_path / "reports", "text")
    path = run.artifacts / INT8 / row.samples[0]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row.samples[1]
    samples = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.int64)
    assert len(samples) == row.n
    assert np.sort(samples[:, 2])[-(-row.n // 2) - 1] / 1e6 == row.p50
    assert (np.diff(samples[:, 1]) >= samples[:-1, 2]).all(), "no query starts before the one before it has ended"


def test_ratios_come_from_interleaved_blocks_of_two_processes(whole: State) -> None:
    kinds = {(c.kind, c.candidate_row, c.reference_row): c for c in whole.comparisons}
    assert ("as_shipped", f"{INT8}-device-1", "teacher-torch-fp32-device-1") in kinds
    assert ("as_shipped", f"{INT8}-end_to_end-1", "teacher-torch-fp32-end_to_end-1") in kinds
    assert ("same_precision", "onnx-fp32-device-1", "teacher-onnx-fp32-device-1") in kinds
    assert ("int8_vs_other", f"{INT8}-device-1", f"{FLOAT}-device-1") in kinds
    for one in whole.comparisons:
        assert (one.status, one.interleave, one.pairs) == ("VALID", "blocks", TINY.pairs)
        assert one.ratio.value is not None
        assert one.ratio.ci95 is not None
        assert 0 < one.ratio.ci95[0] <= one.ratio.value <= one.ratio.ci95[1]
    assert any(f.code.startswith("int8_") for f in find_all(whole))


def test_report_has_the_first_screen_in_its_order(whole: State, tmp_path: Path) -> None:
    verdict, findings = judge(whole), find_all(whole)
    lines = [*head(whole), *reasons(whole), *tail(whole, verdict, findings, [tmp_path / "b.json", tmp_path / "b.md"])]
    starts = [line.split()[0] for line in lines]
    assert starts[:2] == ["machine", "settings"]
    assert lines[-1].startswith("RESULT: PASS · no gate set · ")
    assert lines[-1].endswith("b.{json,md} · exit 0")
    assert any("as shipped" in line and "the teacher takes" in line for line in lines)
    assert next(line for line in lines if line.startswith("NA")).startswith("NA        tensorrt-int8, device: no TensorRT")
    rows = table(whole)
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert not any("host" in row[1] for row in rows)
    text = markdown(whole, verdict, findings)
    for part in ("## Latency", "## Load and memory", "## Engines", "## Warnings", "Samples: `samples/b-1/", "energy null"):
        assert part in text


def test_earlier_result_is_kept_under_its_run_id(whole: State, run: Run, tmp_path: Path) -> None:
    verdict, findings = judge(whole), find_all(whole)
    place = run.artifacts / INT8 / f"bench-{host_name()}.json"
    for run_id in ("b-1", "b-2"):
        files = write_results(replace(whole, run_id=run_id), verdict, findings, tmp_path / "reports", "text")
        assert [path.name for path in files] == [f"bench-{run_id}.json", f"bench-{run_id}.md"]
    assert json.loads(place.read_text())["run_id"] == "b-2"
    earlier = json.loads(place.with_name(f"bench-{host_name()}-b-1.json").read_text())
    for written in (json.loads(place.read_text()), earlier, json.loads(files[0].read_text())):
        check_schema(written)
    beside = {artifact["id"] for artifact in earlier["artifacts"]}
    assert INT8 in beside
    assert "onnx-fp32" not in beside, "beside an artifact lie its own rows and those that it was compared with"
    new_state(run, (INT8,), tmp_path / "again")  # the folder is still a valid artifact


def test_a_result_and_its_samples_are_there_both_or_neither(whole: State, run: Run, tmp_path: Path) -> None:
    """On a full disk (no file longer than so many bytes) nothing of the new result stays, and the earlier ones do."""
    verdict, findings = judge(whole), find_all(whole)
    write_results(replace(whole, run_id="b-3"), verdict, findings, tmp_path / "reports", "text")

    def kept() -> dict[Path, bytes]:
        places = [*run.artifacts.rglob("bench-*"), *run.artifacts.rglob("samples/*/*"), *(tmp_path / "reports").iterdir()]
        return {path: path.read_bytes() for path in places}

    before, full, room = kept(), replace(whole, run_id="b-4"), 100
    short = replace(full, samples={row: data[:room] for row, data in whole.samples.items()})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for state in (full, short):  # no room for the samples; no room for the document
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(OSError, match="too large") as caught:
                write_results(state, verdict, findings, tmp_path / "reports", "text" * room)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert ".tmp-" not in str(caught.value.filename)
        assert kept() == before
        assert list(run.artifacts.rglob(".tmp-*")) == []


def test_one_folder_that_cannot_be_written_costs_the_others_nothing(whole: State, run: Run, tmp_path: Path) -> None:
    verdict, findings = judge(whole), find_all(whole)
    other = replace(whole, run_id="b-5")
    shutil.rmtree(run.artifacts / INT8 / "samples", ignore_errors=True)
    (run.artifacts / INT8 / "samples").write_bytes(b"")  # no folder can be made
    try:
        with pytest.raises(OSError, match="samples"):
            write_results(other, verdict, findings, tmp_path / "reports", "text")
    finally:
        (run.artifacts / INT8 / "samples").unlink()
    assert json.loads((run.artifacts / FLOAT / f"bench-{host_name()}.json").read_text())["run_id"] == "b-5"
    assert json.loads((tmp_path / "reports" / "bench-b-5.json").read_text())["run_id"] == "b-5"
    assert "b-5" not in (run.artifacts / INT8 / f"bench-{host_name()}.json").read_text()


def with_wide_weights(state: State) -> State:
    """The same bench of INT8 files that do not say how many bits their weights have."""

    def wide(subject: Subject) -> Subject:
        artifact = subject.found.artifact
        details = {name: value for name, value in artifact.details.items() if name != "weight_bits"}
        return replace(subject, found=replace(subject.found, artifact=replace(artifact, details=details)))

    return replace(state, plan=replace(state.plan, subjects=tuple(wide(s) for s in state.plan.subjects)))


def test_r10_w611_findings_of_int8(whole: State) -> None:
    weak = replace(whole.machine, isa=("avx2",), cpu_class="x86-avx2")
    assert "int8_saturation" not in {f.code for f in find_all(replace(whole, machine=weak))}, "octc's weights have 7 bits"
    whole = with_wide_weights(whole)
    found = {f.code: f for f in find_all(replace(whole, machine=weak, comparisons=[]))}
    assert found["int8_saturation"].warning == "OCT-W610"
    assert INT8 in found["int8_saturation"].text
    assert "x86-avx2" in found["isa_without_int8"].text
    strong = {f.code for f in find_all(replace(whole, machine=replace(weak, isa=("avx2", "vnni"), cpu_class="x86-vnni")))}
    assert not strong & {"int8_saturation", "isa_without_int8"}
    one = next(c for c in whole.comparisons if c.kind == "int8_vs_other")
    slow = replace(one, ratio=replace(one.ratio, value=1.2, ci95=(1.1, 1.3)), text="INT8 is slower")
    finding = find_all(replace(whole, machine=weak, comparisons=[slow]))[0]
    assert (finding.code, finding.level, finding.warning) == ("int8_slower", "warn", "OCT-W611")
    assert "Observed: x86-avx2 has no INT8 dot product" in finding.text
    for limits, expected in (((1.1, 1.3), True), ((0.9, 1.1), True), ((0.4, 0.6), False)):
        measured = replace(one, ratio=replace(one.ratio, value=sum(limits) / 2, ci95=limits), status="VALID")
        codes = {f.code for f in find_all(replace(whole, machine=weak, comparisons=[measured]))}
        assert ("isa_without_int8" in codes) == expected, limits


def test_the_fastest_is_undecided_where_a_row_that_is_not_valid_was_as_fast(whole: State) -> None:
    def with_rows(changed: dict[str, tuple[float, str, tuple[str, ...]]]) -> State:
        rows = dict(whole.rows)
        for name, (p50, status, why) in changed.items():
            row = rows[f"{name}-device-1"]
            assert row.latency is not None
            percentiles = {**row.latency.percentiles, "p50": Measure(p50, (0.99 * p50, 1.01 * p50))}
            latency = replace(row.latency, percentiles=percentiles)
            rows[row.plan.id] = replace(row, latency=latency, status=status, reasons=why)
        return replace(whole, rows=rows)

    def said(**changed: tuple[float, str, tuple[str, ...]]) -> str:
        names = {"int8": INT8, "plain": FLOAT, "fp32": "onnx-fp32"}
        found = find_all(with_rows({names[key]: value for key, value in changed.items()}))
        return next((one.text for one in found if one.code == "recommended"), "")

    valid, bad = ("VALID", ()), ("INVALID", ("drift",))
    slowest = said(int8=(1, *bad), plain=(2, *bad), fp32=(3, *valid))
    assert "undecided" in slowest
    assert [slowest.index(name) for name in (INT8, FLOAT, "onnx-fp32")] == sorted(
        slowest.index(n) for n in (INT8, FLOAT, "onnx-fp32")
    )
    assert f"fastest: {INT8}" in said(int8=(1, *valid), plain=(2, *bad), fp32=(3, *valid))
    wrong = said(int8=(1, "INVALID", ("output_mismatch",)), plain=(2, *valid), fp32=(3, *valid))
    assert f"fastest: {FLOAT}" in wrong  # outputs that are wrong have no speed
    assert f"not distinguishable from {FLOAT}" in said(int8=(1, *valid), plain=(1.01, *valid), fp32=(3, *valid))
    assert said(int8=(1, *bad), plain=(2, *bad), fp32=(3, *bad)) == ""


def test_verdict_beside_the_speed_is_that_of_the_same_files(whole: State, run: Run) -> None:
    subject = next(s for s in whole.plan.subjects if s.id == "onnx-fp32")
    place = subject.found.folder / "verify.json"
    value = {"schema_version": "1.0", "artifact": "onnx-fp32", "test": {"verdict": {"word": "non_inferior"}}, "select": None,
             "golden": None}  # fmt: skip
    try:
        for sum_, word in ((artifact_sha256(subject.found.folder), "non_inferior"), ("0" * 64, "not_verified")):
            place.write_text(json.dumps({**value, "artifact_sha256": sum_}))
            listed = document(whole, judge(whole), [])["artifacts"]
            assert next(a["verify"] for a in listed if a["id"] == "onnx-fp32") == word
            taken = next(f.text for f in find_all(whole) if f.code == "recommended")
            assert ("onnx-fp32" in taken) or word == "not_verified"
    finally:
        place.unlink()


def test_offline_chooses_its_batch_and_gives_images_per_second(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_quiet(monkeypatch)
    monkeypatch.setattr("octc.bench.timing.measure.OFFLINE_BATCHES", (1, 4))
    state = benched(run, ("onnx-fp32",), tmp_path, options=tiny_options(run, scenario="offline", vs="none"))
    row = state.rows["onnx-fp32-offline"]
    assert row.status == "VALID"
    assert row.plan.batch in (1, 4)
    assert row.rate is not None
    assert row.rate.ci95 is not None
    check_schema(document(state, judge(state), []))


def test_models_that_do_not_fit_together_are_loaded_in_turns(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_quiet(monkeypatch)
    monkeypatch.setattr("octc.bench.timing.runner.memory_mib", lambda name, root: 100)
    monkeypatch.setattr("octc.bench.timing.runner.RELOADS", 2)
    state = benched(run, ("onnx-int8", "onnx-fp32"), tmp_path, options=tiny_options(run, vs="none", batch=1))
    assert [(c.interleave, c.pairs, c.status) for c in state.comparisons] == [("reload", 2, "VALID")]
    assert len(state.facts["onnx-int8"].load_ms) == 3
    assert "reload" in {f.code for f in find_all(state)}


def test_noise_is_all_that_a_real_machine_says_against_a_row(run: Run, tmp_path: Path) -> None:
    state = benched(run, ("onnx-fp32",), tmp_path, options=tiny_options(run, vs="none", batch=1))
    assert {reason for row in state.rows.values() if not row.plan.hidden for reason in row.reasons} <= NOISE
    assert state.plan.subjects[0].role == CANDIDATE
