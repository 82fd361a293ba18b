"""The report of a claim as text: the verdict first, then what it rests on (docs/parity.md, sections 16 and 17).

The words of a positive verdict are used only with one, and always with margin, level, n, patients and set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from octc.bench.parity.evaluation_set import spoken
from octc.bench.parity.tasks.details import SHOWN
from octc.bench.parity.tasks.table import wording_of
from octc.bench.parity.words import claim_of, golden_words, head_word, uses_words

if TYPE_CHECKING:
    from octc.bench.parity.claim import ParityReport


def conditions(report: ParityReport) -> str:
    """Margin, level, set, n, patients: what every verdict is printed with."""
    options, people = report.options, "no patient ids" if report.patients is None else report.known.words
    usual = options.alpha == 0.05
    level = "" if usual else f" ({100 * (1 - options.alpha):g} % interval, one-sided {options.alpha / 2:g})"
    claim = " (two one-sided tests)" if options.claim == "tost" else ""
    return (
        f"{wording_of(report.task).margins(options)}, alpha {options.alpha:g}{level}{claim}, "
        f"{spoken(report.set.name)}, n={report.n} {report.set.unit}, {people}"
    )


def report_text(report: ParityReport) -> str:
    """Lines joined by a line break, none at the end."""
    return "\n".join(_lines(report))


def brief_text(report: ParityReport) -> str:
    """The verdict, why, and the numbers that decide: at most nine lines of it."""
    return "\n".join(_brief(report))


def short_text(report: ParityReport) -> str:
    """The verdict, why, and the interval that decided: a claim beside others."""
    return "\n".join(_short(report))


def _brief(report: ParityReport) -> Iterator[str]:
    yield from _short(report)
    yield from _whose(report)
    if report.comparison is not None and not report.withheld:
        yield from wording_of(report.task).brief(report)
    told = (report.known.warning, *(w for w in report.warnings if w.startswith(("exploratory", "classes without"))))
    if others := [w for w in report.warnings if w not in told]:
        yield f"  warning      {'; '.join(others)}"


def _short(report: ParityReport) -> Iterator[str]:
    yield from _why(report)
    if report.comparison is not None and not report.withheld:
        yield from wording_of(report.task).deciding(report)


def _head(report: ParityReport) -> Iterator[str]:
    """The verdict, why, and the protocol."""
    yield from _why(report)
    info = report.set
    uses = "" if info.uses_of_test is None else f"; {uses_words(info.uses_of_test, info.readings_of_test)}"
    yield f"  protocol     {info.protocol or 'as given'}; TTA {report.tta}; single model{uses}"
    yield from _whose(report)


def _why(report: ParityReport) -> Iterator[str]:
    verdict, info = report.verdict, report.set
    yield f"{head_word(report)}: {claim_of(report)} · {conditions(report)}"
    if info.exploratory:
        yield f"  exploratory  {info.exploratory}"
    if report.withheld:
        yield f"  not tested   {report.withheld}; its numbers are descriptive"
    elif verdict.reasons:
        yield f"  reasons      {', '.join(verdict.reasons)}"
    if verdict.loss_shown:
        yield "  note         a loss was shown: the whole interval lies below zero"
    if verdict.better:
        yield "  note         better: the whole interval lies above zero"
    if report.comparison is None:
        shown = ", ".join(one[:12] for one in report.not_finite[:SHOWN])
        yield f"  not finite   {len(report.not_finite)} of {report.n} {report.set.unit}: {shown}"


def _whose(report: ParityReport) -> Iterator[str]:
    """What is printed beside every number of this data set, and whether patients are known."""
    info = report.set
    if info.note:
        yield f"  note         {info.note}"
    for text in dict.fromkeys((info.leakage, report.known.warning)):
        if (
            text not in ("", "none", "not_checked")
            and not report.known.warning.startswith(f"{text};")
            and text not in info.note
        ):
            yield f"  patients     {text}"


def _lines(report: ParityReport) -> Iterator[str]:
    comparison = report.comparison
    yield from _head(report)
    yield f"  measured     reference {report.reference.source}; candidate {report.candidate.source}"
    if comparison is not None:
        yield from wording_of(report.task).details(report)
    backend = report.backend()
    if backend is not None and comparison is not None:
        held = "within" if backend["ok"] else "beyond"
        on = report.candidate.runtime or "runtime not named"
        yield f"  backend      {backend['pair_id']}: {held} its row (information; {on})"
    if report.golden is not None:
        yield f"  golden       {golden_words(report.golden)}: {'as exported' if report.golden['ok'] else 'DIFFERENT'}"
    for warning in report.warnings:
        if not warning.startswith("exploratory") and warning != report.known.warning:  # said in the first lines
            yield f"  warning      {warning}"
