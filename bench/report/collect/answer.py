"""The first section of a report: which file to deploy, in three sentences and one picture."""

from __future__ import annotations

from dataclasses import asdict

from octc.bench.report.choose import choose
from octc.bench.report.collect.run_summary import RunSummary
from octc.bench.report.collect.speed import points
from octc.bench.report.page import Block, Plot, Section, Text
from octc.figures.pareto import pareto_figure


def answer_section(summary: RunSummary) -> Section:
    """What `octc choose` says of these artifacts; the picture is there where latencies are valid and accuracy is known."""
    choice = choose(summary.found)
    which, why, unknown = choice.sentences
    mark = "warn" if choice.chosen is None or choice.reasons else ""
    blocks: list[Block] = [Text(f"{which} {why}", "lead"), Text(unknown, mark)]
    if found := points(summary):
        figure = pareto_figure(found, "Accuracy against latency (area: size of the files)")
        caption = "Accuracy on the test set with its 95 % interval, against the latency of one image"
        blocks.append(Plot(figure, caption, [vars(one) for one in found]))
    value = choice.to_json()
    candidates = [{key: v for key, v in asdict(one).items() if key != "folder"} for one in choice.candidates]  # can be sent
    return Section("answer", "Which file to deploy", blocks, {**value, "folder": None, "candidates": candidates})
