"""`octc.verify`, `octc.bench` and `octc.report` as a notebook calls them, on files that were really made, judged and timed."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

import octc
from octc.bench.report.collect.accuracy import open_rows
from octc.core.files import canonical_json, parse_json, read_json
from octc.core.progress import LogReporter
from octc.machine.host import host_name
from octc.schemas.verify import VerifyReport
from octc.store.artifacts import read_artifact, write_manifest
from octc.store.runs import Run
from octc.store.test_set_log import read_log
from octc.store.verdicts import read_verdict

GATE = octc.Gate(margin=10, class_margin=30, plan_discordance=0.005, plan_icc=0.1, bootstrap=1000, ece_slack=0.03)
SHORT = octc.BenchOptions(quick=True, duration="0.3s", min_queries=5, vs="none", threads=1)


@pytest.fixture
def run(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy that a test may change, under runs/ of the current folder; the pictures are shared."""
    monkeypatch.chdir(tmp_path)
    return Run(Path(shutil.copytree(made.path, tmp_path / "runs" / made.id)))


def test_a_verdict_is_what_verify_json_holds(run: Run, tmp_path: Path) -> None:
    folder = run.artifacts / "onnx-int8"
    found = octc.verify(folder, gate=GATE)
    assert isinstance(found, octc.VerifyResult)
    assert (found.word, found.passed, found.run_id) == ("equivalent", True, run.id)
    found.raise_if_failed()
    assert "EQUIVALENT: onnx-int8 against its FP32 reference onnx-fp32" in str(found)
    assert not (folder / "verify.json").exists()
    assert found.write() == [folder / "verify.json"]
    (document,) = found.documents
    stored = read_verdict(folder, document["candidate"]["artifact_sha256"])
    assert stored is not None
    assert stored["test"] == parse_json(canonical_json(document))
    assert found.write(tmp_path / "all.json") == [tmp_path / "all.json"]
    assert msgspec.convert(read_json(tmp_path / "all.json"), VerifyReport).run == run.id
    assert len(read_log(run.path).readings) == 1


def test_a_folder_that_cannot_be_written_does_not_keep_the_others(run: Run) -> None:
    other = Path(shutil.copytree(run.artifacts / "onnx-int8", run.artifacts / "onnx-int8-b"))
    write_manifest(other, replace(read_artifact(other), name="onnx-int8-b"))
    found = octc.verify(run.id, gate=GATE)
    assert len(found.judged) == 2
    first = found.judged[0].found.folder
    (first / "verify.json").mkdir()  # nothing can be written there
    with pytest.raises(octc.OctcError) as caught:
        found.write()
    assert (caught.value.code, caught.value.place) == ("OCT-E109", str(first))
    assert (found.judged[1].found.folder / "verify.json").is_file()


def test_a_place_that_cannot_be_written_is_an_error_with_a_hint(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found = octc.verify(run.artifacts / "onnx-int8", run_dir=tmp_path / "none")
    with pytest.raises(octc.OctcError) as caught:
        found.write(tmp_path / "file" / "verify.json")
    assert (caught.value.code, bool(caught.value.hint)) == ("OCT-E109", True)
    measured = octc.bench(run.artifacts / "onnx-int8", options=SHORT)
    with pytest.raises(octc.OctcError) as caught:
        measured.write(tmp_path / "file")
    assert caught.value.code == "OCT-E109"


def test_margins_that_are_not_given_are_those_that_were_written_down(run: Run) -> None:
    octc.verify(run.id, gate=GATE)
    again = octc.verify(run.id)
    (document,) = again.documents
    assert (document["plan"]["margin_pp"], document["verdict"]["exploratory"]) == (10, False)
    assert again.use is not None
    assert again.use.uses == 1


def test_a_claim_that_is_not_shown_does_not_raise_until_it_is_asked_for(run: Run) -> None:
    found = octc.verify(run.artifacts / "onnx-int8", gate=replace(GATE, margin=1, class_margin=1))
    assert (found.passed, found.errors[0].code) == (False, "OCT-E705")
    with pytest.raises(octc.OctcError):
        found.raise_if_failed()


def test_the_validation_set_and_a_reference_by_its_folder(run: Run) -> None:
    options = octc.VerifyOptions(set_name="select")
    found = octc.verify(run.artifacts / "onnx-int8", reference=run.artifacts / "onnx-fp32", gate=GATE, options=options)
    assert (found.set_name, found.documents[0]["reference"]["name"], found.use) == ("select", "onnx-fp32", None)
    with pytest.raises(octc.OctcError) as caught:
        octc.VerifyOptions(set_name="train")
    assert caught.value.code == "OCT-E104"


def test_without_the_run_only_the_golden_images_are_checked(run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.artifacts / "onnx-int8", tmp_path / "box" / "onnx-int8")
    found = octc.verify(copy, run_dir=tmp_path / "none")
    assert (found.word, found.passed) == ("golden_only", True)
    assert found.no_set is not None


def test_a_bench_gives_rows_and_writes_what_report_reads(run: Run) -> None:
    reporter = LogReporter()
    found = octc.bench([run.artifacts / "onnx-int8", run.artifacts / "onnx-fp32"], options=SHORT, reporter=reporter)
    assert isinstance(found, octc.BenchResult)
    assert {row["artifact"] for row in found.rows} == {"onnx-int8", "onnx-fp32"}
    measured = [row for row in found.rows if row["status"] != "NA"]
    assert len(measured) >= 2
    assert all(row["latency_ms"]["p50"]["value"] > 0 for row in measured)
    assert found.status in ("FAIL", "INVALID")  # so short a bench is never valid, and says so
    with pytest.raises(octc.OctcError):
        found.raise_if_failed()
    assert "RESULT: " in str(found)
    files = found.write("reports")
    assert [path.suffix for path in files] == [".json", ".md"]
    assert (run.artifacts / "onnx-int8" / f"bench-{host_name()}.json").is_file()
    assert read_json(files[0])["run_id"] == found.run_id


class Paragraphs(HTMLParser):
    """Texts of paragraphs, captions and cells of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("p", "figcaption", "td"):
            self.found.append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("p", "figcaption", "td")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[-1] += data


def sentences(page: str) -> list[str]:
    """What is said in at least five words that are no numbers, without the stop; a status with its reasons is a value."""
    reader = Paragraphs()
    reader.feed(page)
    parts = [part.strip(" .") for text in reader.found for part in re.split(r"(?<=[.!?]) +(?=[A-Z])", text)]
    return [
        part.casefold() for part in parts if not part.startswith("INVALID: ") and len(re.findall(r"[A-Za-z]{2,}", part)) >= 5
    ]


def test_no_sentence_stands_twice_on_a_page_and_open_rules_are_grouped_by_class(run: Run) -> None:
    octc.verify(run.id, gate=GATE).write()
    octc.verify(run.id, gate=octc.Gate(margin=2, class_margin=4, bootstrap=1000)).write()  # exploratory, and open
    octc.bench(run.id, options=SHORT).write("reports")
    page = octc.report(run.id)
    assert page.name == "report.html"
    text = page.read_text(encoding="utf-8")
    said = sentences(text)
    assert len(said) > 10
    assert [one for one, count in Counter(said).items() if count > 1] == []
    assert "Not shown of onnx-int8 against student onnx-fp32 (exploratory), margin 2 pp:" in text
    assert re.search(r"<td>class bright, dark, lying[^<]*</td><td>[^<]*class margin 4 pp, too_few_images", text)
    assert "regressed/improved" in text
    card = (page.parent / "model-card.md").read_text(encoding="utf-8")
    assert "the test images were read 2 times" in card  # a page of its own is whole


def test_open_rules_name_their_class() -> None:
    def part(name: str, reason: str, detail: str, holds: bool = False) -> dict[str, object]:
        return {"name": name, "reason": reason, "detail": detail, "holds": holds}

    rows = open_rows([
        part("class CNV", "class:CNV", "too few"),
        part("class DME", "class:DME", "too few"),
        part("class NORMAL", "class:NORMAL", "empty_class"),
        part("plan", "underpowered_plan", "planned power 0.1"),
        part("ECE", "ece", "fine", holds=True),
    ])  # fmt: skip
    assert rows == [
        ("class CNV, DME", "too few"),
        ("class NORMAL", "no image of this class"),
        ("plan", "planned power 0.1"),
    ]
