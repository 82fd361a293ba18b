"""`octc verify` where classes do not exclude each other: the same steps and lines as elsewhere, about decisions and mAP."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import octc
from octc.bench.parity.fleet import read_fleet
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.datasets.split import read_split
from octc.store.artifacts import read_artifact, write_manifest
from octc.store.runs import Run
from octc.store.verdicts import read_verdict
from tests.bench.verify_world import change_constants, make_world, read_unchecked
from tests.schema_checks import validate

Ran = Callable[..., "tuple[int, str, str]"]
MARGIN = ("--margin", "10")


def as_several(run: Run) -> None:
    """The run of `make_world` with several labels an image: `lying` pictures are `dark` too, two images are of one eye."""
    split = read_split(run.split)
    parts = {
        part: tuple(
            replace(s, targets=(s.label,) if s.label != 2 else (1, 2), eye=f"{s.path[:-6]}-{i // 2}")
            for i, s in enumerate(items)
        )
        for part, items in split.parts.items()
    }
    several = replace(split, parts=parts)
    several.write(run.split)
    details = {"modality": "oct", "thresholds": [0.5] * 4, "truth": "union"}
    for name in ("onnx-fp32", "onnx-int8"):
        folder = run.artifacts / name
        artifact = read_unchecked(folder)
        lineage = {**artifact.lineage, "split_digest": several.digest}
        write_manifest(folder, replace(artifact, task="multilabel", details={**artifact.details, **details}, lineage=lineage))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_world(tmp_path_factory.mktemp("several"))
    as_several(run)
    return run


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """`octc WORDS` in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def octc(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return octc


def test_the_report_has_ten_lines_and_the_same_heads_as_any_other(run: Run, ran: Ran) -> None:
    code, out, err = ran("verify", *MARGIN)
    lines = out.rstrip().splitlines()
    assert (code, len(lines) <= 10) == (0, True), out
    assert lines[0].startswith(("NON-INFERIOR: onnx-int8 against its FP32", "EQUIVALENT: onnx-int8 against its FP32"))
    assert "margin 10 pp of mAP, alpha 0.05, test set, n=" in lines[0]
    assert "class margin" not in lines[0]
    heads = [line[2:14].strip() for line in lines[1:]]
    assert heads[:1] == ["deciding"]
    assert {"mAP", "classes"} <= set(heads)
    assert "✓ plan" in err
    assert "octc verify -v" in err
    assert "deploy:" in err


def test_more_words_show_every_rule_and_class(run: Run, ran: Ran) -> None:
    out = ran("verify", *MARGIN, "-v")[1]
    assert all(f"  {name:>12} " in out for name in ("bright", "dark", "lying", "upright"))
    assert "  rules        ✓" in out
    assert " regressed " in out


def test_the_document_fits_its_schema_and_is_kept_beside_the_artifact(run: Run, ran: Ran) -> None:
    code, out, _ = ran("verify", *MARGIN, "--json")
    document = json.loads(out)
    validate(document, schema_of("verify"))
    (one,) = document["data"]["artifacts"]
    found = one["decisions"]
    assert (code, one["task"], one["reference"], one["against"]) == (0, "multilabel", "onnx-fp32", "fp32")
    assert found["n"] == one["set"]["n"]
    assert found["map_difference_interval_pp"][0] > -10
    assert one["verdict"]["exit_code"] == 0
    stored = read_verdict(run.artifacts / "onnx-int8", one["artifact_sha256"])
    assert stored is not None
    assert stored["test"] == one
    assert document["data"]["test_set_log"]["readings"] == 1


def test_a_later_verdict_reads_the_records_and_other_margins_are_exploratory(
    run: Run, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octc.bench.report.choose.is_slower", lambda *_: False)  # for such small images that is noise
    ran("verify", *MARGIN)
    code, out, err = ran("verify", "--margin", "11")
    assert "are read back" in err
    assert (code, "(exploratory): onnx-int8" in out) == (0, True)
    assert ran("choose")[1].startswith("Deploy onnx-int8")


def test_a_damaged_layer_fails_and_is_named(run: Run, ran: Ran) -> None:
    def spoil(name: str, value: Any) -> Any:
        return value * np.float32(20) if name == "conv2.weight_scale" else value

    change_constants(run.artifacts / "onnx-int8", spoil, golden=True)
    code, out, err = ran("verify", *MARGIN)
    assert code == 1
    assert "OCT-E704" in err or "OCT-E705" in err
    assert "layers       conv2 (layer 2 of 3)" in out


@pytest.mark.parametrize("words", [("--tta", "hflip"), ("--against", "teacher"), ("--robustness",)])
def test_what_is_not_defined_for_several_labels_is_refused(run: Run, ran: Ran, words: tuple[str, ...]) -> None:
    code, _, err = ran("verify", *words)
    assert (code, "error[OCT-E104]" in err, words[0] in err) == (OctcError("OCT-E104", "", hint="").exit_code, True, True)


def test_a_finding_has_an_operating_point_that_is_obeyed_and_judged(run: Run, ran: Ran) -> None:
    """`lying` pictures are `dark` too: the sensitivity is that of all images with the finding, whatever else they show."""
    artifact, before = run.artifacts / "onnx-int8", read_artifact(run.artifacts / "onnx-int8")
    code, out, err = ran("threshold", "--class", "dark", "--sensitivity", "80", "--json")
    assert code == 0, err
    stored = json.loads(out)["data"]["stored"]
    validate(json.loads(out), schema_of("threshold"))
    assert {one["artifact"] for one in stored} == {"onnx-fp32", "onnx-int8"}
    (point,) = next(one for one in stored if one["artifact"] == "onnx-int8")["rules"]["image"]["points"]
    val = read_split(run.split).parts["val"]
    assert point["n"] == sum(1 in (one.targets or ()) for one in val) == 2 * sum(one.label == 1 for one in val)
    thresholds = read_artifact(artifact).details["thresholds"]
    assert thresholds == [0.5, point["threshold"], 0.5, 0.5]
    files = [str(Path(run.read()["data_root"]) / one.path) for one in val]
    records = json.loads(ran("predict", str(artifact), *files, "--json")[1])["data"]["records"]
    hit = [("dark" in one["labels"]) for one, sample in zip(records, val, strict=True) if 1 in (sample.targets or ())]
    assert (sum(hit), len(hit)) == (point["hits"], point["n"])
    with octc.load(artifact) as model:
        assert ["dark" in (one.labels or ()) for one in model.predict(files)] == ["dark" in one["labels"] for one in records]
    lines = ran("predict", str(artifact), *files, "--format", "csv")[1].splitlines()
    rows = list(csv.DictReader(lines))
    assert [row["labels"] for row in rows] == ["|".join(one["labels"]) for one in records]
    assert "refer" not in rows[0]
    (one,) = json.loads(ran("verify", *MARGIN, "--json")[1])["data"]["artifacts"]
    (found,) = one["rules"]
    test = read_split(run.split).parts["test"]
    for side in ("reference", "candidate"):
        (promise,) = found[side]["promises"]
        assert (promise["what"], promise["name"]) == ("sensitivity", "dark")
        assert promise["n"] == sum(1 in (one.targets or ()) for one in test)
        assert promise["exact"][0] <= promise["value"] <= promise["exact"][1]
    assert "every finding right in" in ran("verify", *MARGIN)[1]
    for name in ("bright", "lying", "upright"):  # every finding may have one: none has to be left
        assert ran("threshold", str(artifact), "--class", name, "--specificity", "80")[0] == 0
    for words in (("threshold", "--refer", "10"), ("abstain", "--sets", "lac"), ("abstain", "--risk", "5")):
        code, _, err = ran(*words)
        assert (code, "OCT-E102" in err) == (2, True)
    assert ran("threshold", "--remove")[0] == 0
    assert read_artifact(artifact).details == before.details


def test_labels_of_a_box_are_refused_where_an_image_has_several(run: Run, ran: Ran, tmp_path: Path) -> None:
    artifact = str(run.artifacts / "onnx-int8")
    files = sorted(Path(run.read()["data_root"]).glob("dark/*-0.png"))[:4]
    assert ran("predict", artifact, *map(str, files), "--monitor", "box.sqlite")[0] == 0
    (tmp_path / "truth.csv").write_text("".join(["path,label\n", *(f"{path},dark\n" for path in files)]))
    code, _, err = ran("monitor", artifact, "box.sqlite", "--labels", "truth.csv")
    assert (code, "OCT-E102" in err, "octc compare" in err) == (2, True, True)
    assert ran("monitor", artifact, "box.sqlite")[0] == 0
    assert ran("monitor", artifact, "--learn")[0] == 2


def test_machines_are_put_side_by_side_by_their_findings(run: Run, ran: Ran, tmp_path: Path) -> None:
    """A finding that is not the likeliest one counts where its threshold is crossed."""
    found = json.loads(ran("verify", *MARGIN, "--json")[1])["data"]["artifacts"][0]
    folder = tmp_path / "fleet"
    folder.mkdir()

    def put(host: str, own: dict[str, Any]) -> None:
        own["machine"]["host"] = host
        (folder / f"{host}.json").write_text(json.dumps({"command": "verify", "data": {"artifacts": [own]}}))

    put("a", found)
    logits = np.asarray(found["box"]["golden_logits"])
    row, finding = max(
        ((i, k) for i in range(len(logits)) for k in range(4) if logits[i, k] < 0 < logits[i].max()), key=lambda at: logits[at]
    )
    other = copy.deepcopy(found)
    other["box"]["golden_logits"][row][finding] = 1e-3
    assert logits[row].argmax() == np.asarray(other["box"]["golden_logits"])[row].argmax()
    own = other["box"]["labels"]["predictions"][0]
    other["box"]["labels"]["predictions"][0] = [0, *own] if own[:1] != [0] else own[1:]
    put("b", other)
    older = copy.deepcopy(found)
    del older["box"]["thresholds"]
    put("c", older)
    rows = {one.box: one for one in read_fleet(folder).rows}
    assert (rows["a"].golden_labels, rows["a"].labels, rows["a"].short) == (0, 0, None)
    assert (rows["b"].golden_labels, rows["b"].labels) == (1, 1)
    assert "verify again" in (rows["c"].short or "")
