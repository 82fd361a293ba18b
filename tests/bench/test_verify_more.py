"""`octc verify` beside the verdict: areas, temperatures, subgroups, worse pictures, and where a damaged file departs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.bench.parity import open_artifact
from octc.bench.parity.subgroups import picture_sizes, read_groups
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.csv_files import csv_bytes
from octc.core.errors import OctcError
from octc.datasets.base import Sample
from octc.datasets.split import read_split
from octc.runtimes.layers import layer_gaps, suspects
from octc.stats.temperature import LEAST_IMAGES
from octc.store.artifacts import artifact_sha256
from octc.store.rewriting import rewrite_details
from octc.store.runs import Run
from tests.bench.verify_world import FORGIVING, change_constants, read_unchecked
from tests.schema_checks import validate

Said = Callable[..., "tuple[int, Any]"]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """`octc verify WORDS --json` in this process: exit code and document, which fits its schema."""
    monkeypatch.chdir(tmp_path)

    def verify(*words: str) -> tuple[int, Any]:
        code = main(["verify", *words, *FORGIVING, "--json"])
        document = json.loads(capsys.readouterr().out)
        validate(document, schema_of("verify"))
        return code, document

    return verify


def table(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def scaled(name: str, value: Any) -> Any:
    """One layer's scale, 1.5 times what it was."""
    return value * np.float32(1.5) if name == "conv2.weight_scale" else value


def test_areas_temperatures_and_sizes_stand_beside_the_verdict(run: Run, said: Said) -> None:
    samples = read_split(run.split).parts
    assert len(samples["val"]) >= LEAST_IMAGES
    code, document = said()
    (one,) = document["data"]["artifacts"]
    assert (code, one["verdict"]["word"]) in ((0, "non_inferior"), (0, "equivalent"))
    assert one["auc"]["macro"]["method"] == "patient bootstrap"
    low, high = one["auc"]["macro"]["difference_interval"]
    assert low <= one["auc"]["macro"]["difference"] <= high
    for name in ("reference", "candidate"):
        found = one["calibration"][name]
        assert found["temperature_fit"]["fitted"], found["temperature_fit"]
        assert found["temperature_fit"]["n"] == len(samples["val"])
        assert found["temperature"] != 1
        assert found["temperature_fit"]["nll_after"] < found["temperature_fit"]["nll_before"]
        assert found["after_temperature"]["nll"] != found["nll"]
    sizes = [row for row in one["subgroups"] if row["column"] == "image size"]
    assert [row["value"] for row in sizes] == ["40 x 40", "48 x 40"]
    assert sum(row["n"] for row in sizes) == one["set"]["n"]
    assert sum(row["lost"] for row in sizes) == one["counts"]["lost"]
    assert (one["robustness"], one["layers"], one["suspects"]) == (None, [], [])


def test_a_verdict_is_of_the_artifact_that_was_run_though_another_lies_there_by_then(
    run: Run, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run.artifacts / "onnx-int8"
    before, replayed = artifact_sha256(folder), open_artifact.check_golden

    def meanwhile(place: Path, *given: Any) -> Any:
        if place.name == "onnx-int8" and artifact_sha256(folder) == before:
            rewrite_details(folder, {"exported again": True})
        return replayed(place, *given)

    monkeypatch.setattr(open_artifact, "check_golden", meanwhile)
    _, document = said()
    assert [one["candidate"]["artifact_sha256"] for one in document["data"]["artifacts"]] == [before]
    assert artifact_sha256(folder) != before
    assert not (folder / "verify.json").exists()
    assert "OCT-W701" in [one["code"] for one in document["warnings"]]


def test_f68_a_scale_that_is_half_as_large_again_is_caught_and_named(run: Run, said: Said) -> None:
    change_constants(run.artifacts / "onnx-int8", scaled)
    code, document = said()
    assert code == 1
    assert document["error"]["code"] == "OCT-E506"
    assert "layer conv2 stands out" in document["error"]["message"]
    (one,) = document["data"]["artifacts"]
    assert one["verdict"]["word"] == "fail"
    assert one["suspects"] == ["conv2"]
    gaps = {gap["name"]: gap for gap in one["layers"]}
    assert list(gaps) == ["conv1", "conv2", "head"]
    assert gaps["conv2"]["gain"] == pytest.approx(1.5, abs=0.05)
    assert gaps["conv1"]["gain"] == pytest.approx(1.0, abs=0.05)
    assert gaps["conv1"]["error"] < 0.1 < gaps["conv2"]["added"]


def test_f68_it_is_named_too_where_its_golden_logits_were_made_of_the_damaged_file(run: Run, said: Said) -> None:
    """Sums and golden images then hold: statistics alone see it, and the layers still say where."""
    change_constants(run.artifacts / "onnx-int8", scaled, golden=True)
    code, document = said()
    (one,) = document["data"]["artifacts"]
    assert one["golden"]["ok"]
    assert code == 1, one["verdict"]
    assert one["verdict"]["word"] in ("fail", "inferior", "inconclusive")
    assert one["suspects"] == ["conv2"]
    assert one["agreement"]["dlogit_max"] > 0.1 * one["agreement"]["s"]


def test_layers_of_a_sound_file_do_not_stand_out(made: Run) -> None:
    folders = [made.artifacts / name for name in ("onnx-fp32", "onnx-int8")]
    images = np.random.default_rng(0).integers(60, 200, (5, 1, 32, 32)).astype(np.uint8)
    pair = [(folder, read_unchecked(folder)) for folder in folders]
    gaps = layer_gaps(pair[0], pair[1], images)
    assert [gap.name for gap in gaps] == ["conv1", "conv2", "head"]
    assert not suspects(gaps)
    assert all(0 < gap.error < 0.1 for gap in gaps)
    same = layer_gaps(pair[0], pair[0], images)
    assert {(gap.error, gap.gain) for gap in same} == {(0.0, 1.0)}


def test_columns_of_a_table_are_compared_apart(run: Run, said: Said, tmp_path: Path) -> None:
    samples = read_split(run.split).parts["test"]
    rows = [[s.path, "old" if i % 3 else "new", str(i)] for i, s in enumerate(samples)]
    path = table(tmp_path / "groups.csv", ["path", "device", "age"], rows[:-1])  # of the last one nothing is known
    code, document = said("--subgroups", str(path))
    assert code == 0
    found = document["data"]["artifacts"][0]["subgroups"]
    devices = {row["value"]: row["n"] for row in found if row["column"] == "device"}
    assert devices == {"(not given)": 1, "new": len(rows[:-1:3]), "old": len(rows) - 1 - len(rows[:-1:3])}
    ages = [row for row in found if row["column"] == "age" and row["value"] != "(not given)"]
    assert len(ages) == 4  # quarters of the numbers
    assert max(row["n"] for row in ages) - min(row["n"] for row in ages) <= 1
    for row in found:
        assert row["p_holm"] >= row["p"]
        if row["deciding"] is not None:
            assert row["deciding"][0] <= row["D_pp"] <= row["deciding"][1]


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        (["path", "sha256"], [["a", "b"]], "one more"),
        (["name", "device"], [["a", "b"]], "needs a column"),
        (["path", "device"], [["elsewhere.png", "b"]], "knows no image of the set"),
        (["path", "device"], [["a", "b"], ["a", "c"]], "twice"),
        (["path", "device"], [["a"]], "cells"),
    ],
)
def test_tables_that_do_not_fit_are_refused_before_the_set_is_used(
    run: Run, said: Said, tmp_path: Path, header: list[str], rows: list[list[str]], words: str
) -> None:
    code, document = said("--subgroups", str(table(tmp_path / "groups.csv", header, rows)))
    assert (code, document["error"]["code"]) == (3, "OCT-E209")
    assert words in document["error"]["message"]
    assert not (run.path / "verify-plan.json").exists()


def test_a_column_of_many_words_is_refused(made: Run, tmp_path: Path, run: Run, said: Said) -> None:
    samples = read_split(made.split).parts["test"]
    path = table(tmp_path / "many.csv", ["path", "site"], [[s.path, f"site {i}"] for i, s in enumerate(samples)])
    code, document = said("--subgroups", str(path))
    assert (code, document["error"]["code"]) == (3, "OCT-E209")
    assert "different values" in document["error"]["message"]


def test_images_are_found_by_sum_and_by_patient_too(made: Run, tmp_path: Path) -> None:
    samples = read_split(made.split).parts["test"]
    root = Path(made.read()["data_root"])
    for key, value in (("sha256", samples[0].sha256), ("patient", str(samples[0].patient))):
        found = read_groups(table(tmp_path / f"{key}.csv", [key, "side"], [[value, "left"]]), samples)["side"]
        assert found[samples[0].sha256] == "left"
        assert list(found.values()).count("left") == (1 if key == "sha256" else 4)
    (tmp_path / "stated.csv").write_text(f"sep=;\npath;side\n{samples[0].path};left\n", "utf-16")
    assert read_groups(tmp_path / "stated.csv", samples)["side"][samples[0].sha256] == "left"
    assert set(picture_sizes(samples, root).values()) == {"40 x 40", "48 x 40"}
    with pytest.raises(OctcError, match="cannot be read"):
        read_groups(tmp_path / "not-there.csv", samples)


def test_robustness_is_measured_for_both_and_decides_nothing(run: Run, said: Said) -> None:
    code, document = said("--robustness")
    found = document["data"]["artifacts"][0]["robustness"]
    assert code == 0
    assert {row["kind"] for row in found["cells"]} == set(found["breaks_at"])
    assert len(found["cells"]) == 35
    last = {row["kind"]: row for row in found["cells"]}
    assert last["blur"]["reference"] < found["clean"]["reference"]  # stripes that are blurred away
    assert all(row["n"] == document["data"]["artifacts"][0]["set"]["n"] for row in found["cells"])
    assert found["earlier"] == []


def test_auc_decides_only_where_a_margin_was_stated(run: Run, said: Said) -> None:
    name = "area under the ROC curves"
    change_constants(run.artifacts / "onnx-int8", scaled, golden=True)
    _, document = said()
    assert name not in {part["name"] for part in document["data"]["artifacts"][0]["verdict"]["parts"]}
    _, document = said("--auc-margin", "0.1")
    parts = {part["name"]: part for part in document["data"]["artifacts"][0]["verdict"]["parts"]}
    assert (parts[name]["holds"], parts[name]["code"]) == (False, "OCT-E705")
    assert "margin 0.1 points" in parts[name]["detail"]
    assert said("--auc-margin", "0")[1]["error"]["code"] == "OCT-E104"


def test_paths_may_stand_as_the_tables_of_an_evaluation_write_them(tmp_path: Path) -> None:
    """A path that a spreadsheet would run stands behind a mark there."""
    samples = [Sample(path, 0, None, "test", f"{k:064x}") for k, path in enumerate(("=a.png", "-b.png", "c.png"))]
    (tmp_path / "g.csv").write_bytes(csv_bytes(["path", "device"], [[s.path, f"d{k}"] for k, s in enumerate(samples)]))
    assert list(read_groups(tmp_path / "g.csv", samples)["device"].values()) == ["d0", "d1", "d2"]
