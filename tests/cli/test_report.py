"""`octc report` of a pair that was really verified and really timed; its page in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from syrupy.assertion import SnapshotAssertion

from octc.bench.report.collect.accuracy import flipped_section
from octc.bench.report.collect.run_summary import read_run_summary
from octc.bench.report.collect.weight_errors import far_layers, weight_errors
from octc.bench.report.page import Section, Table, Text, to_html, to_markdown
from octc.bench.report.write import photo_of
from octc.cli._app.main import main
from octc.store.find import find_artifacts
from octc.store.runs import Run
from tests.bench_tools import pretend_quiet, short_profiles
from tests.browser import chromium
from tests.cli.verify_runs import DECIDABLE, made_pair, respelled
from tests.printed import told

SECTIONS = (
    "answer",
    "summary",
    "verdicts",
    "classes",
    "confusion",
    "roc",
    "calibration",
    "latency",
    "pareto",
    "layers",
    "flipped",
    "card",
)


def damage(folder: Path) -> str:
    """The first layer's weight scale times 1.5, as a mistaken export would write it; the name of the layer.

    No residual path leads around the first one, so that a network as tiny as this feels it.
    """
    model = onnx.load(folder / "model.onnx")
    made = {out: node for node in model.graph.node for out in node.output}
    known = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QLinearConv":
            scale = node.input[4]
        elif node.op_type == "Conv" and node.input[1] in made and made[node.input[1]].op_type == "DequantizeLinear":
            scale = made[node.input[1]].input[1]
        else:
            continue
        known[scale].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(known[scale]) * np.float32(1.5), scale))
        onnx.save(model, folder / "model.onnx")
        respelled(folder)
        return str(node.name or node.output[0])
    raise AssertionError("no quantised convolution")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pair: verified on its test set, timed with short profiles; a damaged INT8 artifact beside the good one."""
    made = made_pair()
    place = tmp_path_factory.mktemp("report")
    shutil.copytree(made.path.parent, place / "runs")
    run = Run(place / "runs" / made.id)
    for folder in run.artifacts.iterdir():
        if folder.name not in ("onnx-fp32", "onnx-int8"):
            shutil.rmtree(folder)
    spoilt = shutil.copytree(run.artifacts / "onnx-int8", run.artifacts / "onnx-int8-spoilt")
    respelled(spoilt, name="onnx-int8-spoilt")
    (place / "layer").write_text(damage(spoilt))
    (place / "id").write_text(run.id)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        short_profiles(patch)
        pretend_quiet(patch)
        patch.setenv("COLUMNS", "200")
        names = [str(run.artifacts / name) for name in ("onnx-int8", "onnx-fp32")]
        words = {"verify": [run.id, *DECIDABLE], "bench": [*names, "--vs", "none", "--batch", "1", "--threads", "1"]}
        for command, code in (("verify", 1), ("bench", 0)):
            with (place / command).open("w") as stream, redirect_stdout(stream):
                assert main([command, *words[command]]) == code, "verify catches the damaged one"
    return place


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(place)
    return (place / "id").read_text()


def test_what_verify_prints(place: Path, snapshot: SnapshotAssertion) -> None:
    assert told((place / "verify").read_text(), figures=True) == snapshot


def test_the_table_of_bench(place: Path, snapshot: SnapshotAssertion) -> None:
    """Which samples suffice for a percentile, and whether a sensor is here, is the machine's."""
    lines = re.sub(r"n<N|null", "N", told((place / "bench").read_text(), figures=True)).splitlines()
    assert [line for line in lines if re.match(r"\s*(artifact|onnx-)", line)] == snapshot


def test_verdicts_and_plots_in_the_text_of_a_report(run: str, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert main(["report", run, "-o", str(tmp_path / "r"), "--md"]) == 0
    text = (tmp_path / "r" / "report.md").read_text()
    what_was_judged = text.partition("\n## Summary\n")[2].partition("\n## Latency\n")[0]  # and not how quick it is here
    assert told(what_was_judged, figures=True) == snapshot


class Page(HTMLParser):
    """Addresses that a page names, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action")]


def test_report_holds_every_section_and_asks_the_network_for_nothing(run: str, tmp_path: Path, place: Path) -> None:
    words = ["report", run, "-o", str(tmp_path / "r"), "--checklist", "claim", "--sbom"]
    assert main(words) == 0
    html = (tmp_path / "r" / "report.html").read_text()
    page = Page(html)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", html.partition("<body>")[0])
    for name in SECTIONS:
        assert f'<section id="{name}">' in html
    assert page.tags.count("svg") >= 10
    assert "Not a medical device" in html
    assert str(place) not in html, "no path of this machine"
    text = (tmp_path / "r" / "report.md").read_text()
    figures = re.findall(r"\]\((figures/[\w.-]+\.svg)\)", text)
    assert len(figures) == page.tags.count("svg")
    for name in figures:
        ElementTree.parse(tmp_path / "r" / name)
    value = json.loads((tmp_path / "r" / "report.json").read_text())
    assert [section["id"] for section in value["sections"]] == [*SECTIONS, "checklist"]
    card = (tmp_path / "r" / "model-card.md").read_text()
    for word in ("Intended use: to be written by the maker", "Not a medical device", "licence", "Limits:"):
        assert word in card
    assert main(words) == 2, "an output that exists is not overwritten"


def test_numbers_are_those_that_verify_and_bench_stored(run: str, tmp_path: Path) -> None:
    assert main(["report", run, "-o", str(tmp_path / "r"), "--md"]) == 0
    assert not (tmp_path / "r" / "report.html").exists()
    value = json.loads((tmp_path / "r" / "report.json").read_text())
    sections = {section["id"]: section for section in value["sections"]}
    stored = json.loads((Path("runs") / run / "artifacts/onnx-int8/verify.json").read_text())["test"]
    assert sections["confusion"]["data"]["onnx-int8"] == stored["confusion"]["candidate"]
    row = next(r for r in sections["verdicts"]["tables"][0]["rows"] if r[0] == "onnx-int8")
    assert row[3] == f"{stored['accuracy']['candidate']:.2f}"
    flips = sections["flipped"]["data"]
    changed = round((1 - stored["agreement"]["rate"]) * stored["set"]["n"])
    assert len(next(rows for name, rows in flips.items() if name.startswith("onnx-int8 against"))) == changed
    rows = {r["id"]: r for r in sections["latency"]["data"]}
    bench = json.loads(next((Path("runs") / run / "artifacts/onnx-int8").glob("bench-*.json")).read_text())
    assert rows["onnx-int8-device-1"]["latency_ms"] == bench["rows"][0]["latency_ms"]


def test_it_opens_with_the_answer_of_choose_and_repeats_no_paragraph(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", run, "-o", str(tmp_path / "r")]) == 0
    value = json.loads((tmp_path / "r" / "report.json").read_text())
    capsys.readouterr()
    main(["choose", run, "--json"])
    chosen = json.loads(capsys.readouterr().out)["data"]
    first = value["sections"][0]
    assert " ".join(first["texts"]) == " ".join(chosen["sentences"])
    assert first["data"]["artifact"] == chosen["artifact"] is not None
    assert len(first["figures"]) == 1
    drawn = [point["name"] for point in first["figures"][0]["data"]]
    assert drawn == [row[0] for s in value["sections"] if s["id"] == "pareto" for row in s["tables"][0]["rows"]]
    page = (tmp_path / "r" / "report.html").read_text()
    paragraphs = re.findall(r"<p(?: class=\"\w+\")?>(.{40,}?)</p>", page)
    assert len(paragraphs) == len(set(paragraphs)) > 5
    assert "Not a medical device" in (tmp_path / "r" / "model-card.md").read_text()


def test_damaged_layer_is_named(run: str, tmp_path: Path, place: Path) -> None:
    layer = (place / "layer").read_text()
    artifacts = place / "runs" / run / "artifacts"
    good = weight_errors(artifacts / "onnx-fp32/model.onnx", artifacts / "onnx-int8/model.onnx")
    assert len(good) > 10
    assert not far_layers(good)
    bad = far_layers(weight_errors(artifacts / "onnx-fp32/model.onnx", artifacts / "onnx-int8-spoilt/model.onnx"))
    assert [one.name for one in bad] == [layer]
    assert bad[0].gain == pytest.approx(1.5, abs=0.05)
    assert main(["report", run, "-o", str(tmp_path / "r"), "--html"]) == 0
    assert "onnx-int8-spoilt: FAIL before any labelled image" in (tmp_path / "r" / "report.html").read_text()
    assert f"{layer}: error" in (tmp_path / "r" / "report.html").read_text()
    assert not (tmp_path / "r" / "report.md").exists()


def test_sbom_and_checklists(run: str, tmp_path: Path) -> None:
    for name, count in (("claim", 44), ("tripod-ai", 52)):
        assert main(["report", run, "-o", str(tmp_path / name), "--checklist", name, "--sbom"]) == 0
        value = json.loads((tmp_path / name / "report.json").read_text())
        rows = next(s for s in value["sections"] if s["id"] == "checklist")["data"]
        assert len({row[0] for row in rows}) == len(rows) == count
        assert 10 < sum(not row[2].startswith("for the author") for row in rows) < count
    bom = json.loads((tmp_path / "claim" / "sbom.cdx.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    models = [c for c in bom["components"] if c["type"] == "machine-learning-model"]
    assert {m["name"] for m in models} == {"onnx-int8", "onnx-fp32", "onnx-int8-spoilt"}
    assert all(len(f["hashes"][0]["content"]) == 64 for m in models for f in m["components"])
    refs = {c["bom-ref"] for c in bom["components"]} | {"run"}
    assert {ref for d in bom["dependencies"] for ref in (d["ref"], *d["dependsOn"])} <= refs
    again = json.loads((tmp_path / "tripod-ai" / "sbom.cdx.json").read_text())
    assert bom["serialNumber"] == again["serialNumber"]


def test_images_only_where_asked_for_and_names_can_be_hidden(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    summary = read_run_summary(find_artifacts(run, Path("runs"), {})[0], Path("runs"))
    records = summary.records[summary.checksums["onnx-int8"]]
    turned = records.logits.copy()
    turned[:3] = turned[:3, :, ::-1]  # three images that the artifact now sees otherwise
    changed = replace(summary, records={**summary.records, summary.checksums["onnx-int8"]: replace(records, logits=turned)})
    root = Path(str(summary.facts["data_root"]))
    plain = to_html("t", [flipped_section(changed, redact=False, show=None)], "")
    hidden = to_html("t", [flipped_section(changed, redact=True, show=None)], "")
    shown = to_html(
        "t", [flipped_section(changed, redact=False, show=photo_of(root, {s.path: s for s in changed.images.values()}))], ""
    )
    names = re.compile(r"(BRIGHT|DARK|LYING|UPRIGHT)-\d+-\d+\.png")
    assert "<img" not in plain
    assert len(set(names.findall(plain))) >= 1
    assert "labels changed" in hidden
    assert not names.search(hidden)
    assert "data:image/png;base64," in shown
    assert main(["report", run, "--photos", "--redact-ids"]) == 2
    assert main(["report", run, "--checklist", "nobody"]) == 2
    assert "OCT-E104" in capsys.readouterr().err


def test_everything_is_escaped() -> None:
    evil = '<script>alert("x")</script>&|*'
    made = [Section("s", evil, [Text(evil, "warn"), Table((evil,), [(evil,)], evil)])]
    html = to_html(evil, made, evil)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 9
    text = to_markdown(evil, made, evil)
    assert "<script>" not in text.replace("\\<script\\>", "")


def test_artifact_alone_has_a_report_that_says_what_is_missing(place: Path, run: str, tmp_path: Path) -> None:
    copy = shutil.copytree(place / "runs" / run / "artifacts/onnx-int8", tmp_path / "box" / "onnx-int8")
    (copy / "verify.json").unlink()
    for path in copy.glob("bench-*"):
        path.unlink()
    assert main(["report", str(copy), "--run-dir", str(tmp_path / "none"), "-o", str(tmp_path / "r")]) == 0
    text = (tmp_path / "r" / "report.md").read_text()
    for word in ("Not verified on labelled images here", "Not measured: octc bench", "No labelled images were run here"):
        assert word in text


WIDTHS = (360, 1440)
VISIBLE = """() => [...document.querySelectorAll('figure svg')].map(e => { const b = e.getBoundingClientRect();
  return [b.width, b.height, e.querySelectorAll('text').length]; })"""


def test_page_in_a_real_browser(run: str, tmp_path: Path) -> None:
    assert main(["report", run, "-o", str(tmp_path / "r"), "--checklist", "claim"]) == 0
    address = (tmp_path / "r" / "report.html").as_uri()
    with chromium() as browser:
        seen: dict[tuple[int, str], str] = {}
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                said: list[str] = []
                asked: list[str] = []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("pageerror", lambda error, said=said: said.append(str(error)))
                page.on("request", lambda request, asked=asked: asked.append(request.url))
                page.goto(address)
                assert said == []
                assert asked == [address]
                assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
                boxes = page.evaluate(VISIBLE)
                assert len(boxes) >= 10
                assert all(100 < w <= width and h > 50 and words > 0 for w, h, words in boxes), boxes
                seen[width, scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert len(page.screenshot(full_page=True)) > 10_000
                page.close()
    assert seen[360, "light"] != seen[360, "dark"]
