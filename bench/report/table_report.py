"""The report of two prediction tables: a page, Markdown, JSON, a JUnit file, and every unmatched row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from octc.bench.parity.render import conditions
from octc.bench.parity.tables.compare import TablesCompared
from octc.bench.parity.tasks.table import wording_of
from octc.bench.parity.words import claim_of, head_word, percents, span
from octc.bench.report.page import Block, Section, Table, Text, to_markdown, write_forms
from octc.core.csv_files import csv_bytes
from octc.core.errors import OctcError
from octc.core.faults import writing_to
from octc.core.files import at_free_name, publishing, stamped, write_bytes
from octc.core.version import own_version
from octc.stats.comparison import RIGHT
from octc.stats.proportions import wilson
from octc.stats.verdict import pp

SHOWN = 50  # flips and unmatched rows of the page
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
NOTE = "Margins count as stated beforehand only if they were: whether anyone had looked is not known here."


def title_of(found: TablesCompared) -> str:
    """Who against whom."""
    return f"octc compare: {claim_of(found.report)}"


def sections_of(found: TablesCompared) -> list[Section]:
    """The verdict with its rules, classes, rows that changed, rows that do not match, how it was read."""
    report = found.report
    head: list[Block] = [
        Text(f"{head_word(report)}: {claim_of(report)} · {conditions(report)}", "lead" if not found.exit_code else "warn"),
        *(Text(line.strip()) for line in str(found).splitlines()[1:]),
        Text(NOTE, "note"),
    ]
    rules = [("✓" if part.holds else "✗", part.name, part.detail) for part in report.verdict.parts]
    made = [Section("verdict", "Verdict", head), Section("rules", "Rules", [Table(("", "rule", "numbers"), rules)])]
    if report.comparison is not None:
        made += _measured(found)
    if found.unmatched.count:
        rows = found.unmatched.pairs
        note = f"all {len(rows):,} stand in unmatched.csv" if len(rows) > SHOWN else ""
        made.append(Section("unmatched", "Rows that do not match", [Table(("row", "where"), rows[:SHOWN], note)]))
    made.append(Section("details", "Every number", [Text(line.strip()) for line in found.to_text().splitlines()[1:]]))
    return made


def _measured(found: TablesCompared) -> Iterator[Section]:
    report = found.report
    comparison = report.comparison
    if not report.task.exclusive:
        columns = ("class", "support", "AP before", "AP after", "regressed", "improved")
        keys = ("class", "support", "ap_reference", "ap_candidate", "lost", "gained")
        rows = [tuple(_cell(row[key]) for key in keys) for row in comparison.per_class]
        yield Section("classes", "Findings", [Table(columns, rows)])
        return
    if comparison.form != RIGHT:
        yield Section("classes", "Classes", [Table(CLASS_COLUMNS, list(_class_rows(found)))])
    flips = comparison.agreement["flips"]
    changed = comparison.n - comparison.agreement["count"]
    if flips:
        rows = [(flip["id"], flip["label"], flip["reference"], flip["candidate"]) for flip in flips[:SHOWN]]
        note = f"{len(rows)} of {changed:,}" if changed > len(rows) else ""
        yield Section("flips", "Rows that changed", [Table(("row", "label", "before", "after"), rows, note)])


CLASS_COLUMNS = ("class", "n", "before %", "after %", "difference pp", "regressed", "improved", "guard")


def _class_rows(found: TablesCompared) -> Iterator[tuple[str, ...]]:
    comparison, alpha = found.report.comparison, found.report.options.alpha
    for k, one in enumerate(comparison.per_class):
        if one.pair is None:
            yield (one.name, "0", "", "", "", "", "", str(one.guard_reason))
            continue
        hits = [comparison.matrices[side][k][k] for side in ("reference", "candidate")]
        cells = [f"{100 * hit / one.n:.2f} {percents(wilson(hit, one.n, alpha) or (0.0, 1.0))}" for hit in hits]
        change = f"{pp(one.pair.difference)} {span(one.pair.deciding)}"
        guard = "holds" if one.guard else str(one.guard_reason)
        yield (one.name, str(one.n), *cells, change, str(one.pair.lost), str(one.pair.gained), guard)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def markdown_of(found: TablesCompared) -> str:
    """A summary for a pull request: the verdict, the numbers that decide, what does not hold."""
    report = found.report
    metric, changes = wording_of(report.task).columns
    parts: list[Block] = [Text(f"{head_word(report)}: {conditions(report)}", "lead" if not found.exit_code else "warn")]
    if report.comparison is not None:
        before, after, changed, difference, agreement = wording_of(report.task).cells(report)
        rows = [
            (metric, before, after),
            ("difference, pp", "", difference),
            (changes, "", changed),
            ("equal answers %", "", agreement),
        ]
        parts.append(Table(("", found.report.reference.name, found.report.candidate.name), rows))
        if report.task.exclusive and report.comparison.form != RIGHT:
            parts.append(Table(CLASS_COLUMNS, list(_class_rows(found))))
    parts += [Text(f"Not shown: {part.name}: {part.detail}") for part in report.verdict.parts if not part.holds]
    parts += [Text(f"Left out: {sentence}") for sentence in found.unmatched.sentences()]
    return to_markdown(title_of(found), [Section("verdict", "Verdict", parts)], f"octc {own_version()}")


def junit_of(found: TablesCompared) -> str:
    """A JUnit file: a test case for each rule of the verdict, and one for the verdict itself."""
    report = found.report
    name = f"octc.compare.{report.candidate.name}"
    cases = [(part.name, part.holds, f"{part.code} {part.reason}", part.detail) for part in report.verdict.parts]
    text = f"{report.word}: {', '.join(report.verdict.reasons) or conditions(report)}"
    cases.append(("verdict", found.exit_code == 0, text, conditions(report)))
    failed = sum(not holds for _, holds, _, _ in cases)
    suite = (
        f'<testsuite name={quoteattr(_plain(title_of(found)))} tests="{len(cases)}" failures="{failed}" errors="0" skipped="0">'
    )
    lines = [HEAD, "<testsuites>", suite]
    for case, holds, *texts in cases:
        message, detail = map(_plain, texts)
        open_tag = f"<testcase classname={quoteattr(_plain(name))} name={quoteattr(_plain(case))}"
        if holds:
            lines.append(f"{open_tag}><system-out>{escape(detail)}</system-out></testcase>")
        else:
            lines.append(f"{open_tag}><failure message={quoteattr(message)}>{escape(detail)}</failure></testcase>")
    return "\n".join([*lines, "</testsuite>", "</testsuites>"]) + "\n"


def write_tables_report(found: TablesCompared, reports: Path, time_utc: str) -> Path:
    """reports/compare-<time>/ with compare.html, compare.md, compare.json and unmatched.csv; never over an older one."""
    made, title = sections_of(found), title_of(found)
    foot = f"Made by octc {own_version()} on {time_utc} from {' and '.join(path.name for path in found.tables)}."

    def write(folder: Path) -> None:
        with publishing(folder) as new:
            write_forms(new, "compare", title, made, foot, {**found.to_json(), "time_utc": time_utc})
            if found.unmatched.count:
                write_bytes(new / "unmatched.csv", csv_bytes(("row", "where"), found.unmatched.pairs))

    return at_free_name(lambda: stamped(reports, "compare"), write)[0]


def refusal_junit(error: OctcError, tables: tuple[Path, Path]) -> str:
    """A JUnit file of a comparison that did not come about: one test case with an error."""
    name = f"octc compare: {tables[1].name} against {tables[0].name}"
    told = f"{error.message}\nhelp: {error.hint}\n{error.place or ''}".rstrip()
    case = f'<testcase classname={quoteattr(_plain(f"octc.compare.{tables[1].name}"))} name="verdict">'
    fault = f"<error message={quoteattr(_plain(f'{error.code} {error.message}'))}>{escape(_plain(told))}</error>"
    suite = f'<testsuite name={quoteattr(_plain(name))} tests="1" failures="0" errors="1" skipped="0">'
    lines = [HEAD, "<testsuites>", suite, f"{case}{fault}</testcase>", "</testsuite>", "</testsuites>"]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Without signs that XML cannot hold."""
    return "".join(
        sign if sign in "\t\n" or (sign.isprintable() and not "\ud800" <= sign <= "\udfff") else "?" for sign in text
    )


def refusal_markdown(error: OctcError, tables: tuple[Path, Path]) -> str:
    """A summary of a comparison that did not come about."""
    blocks: list[Block] = [Text(f"No verdict: {error.code}: {error.message}", "warn"), Text(f"Help: {error.hint}")]
    title = f"octc compare: {tables[1].name} against {tables[0].name}"
    return to_markdown(title, [Section("verdict", "Verdict", blocks)], f"octc {own_version()}")


def write_refusal(error: OctcError, tables: tuple[Path, Path], junit: Path | None, markdown: Path | None) -> None:
    """What a continuous integration reads where there is no verdict, so that it does not read that of an earlier comparison."""
    for path, make in ((junit, refusal_junit), (markdown, refusal_markdown)):
        if path is not None:
            with writing_to(path):
                write_bytes(path, make(error, tables).encode())


def write_for_ci(found: TablesCompared, junit: Path | None, markdown: Path | None) -> None:
    """The files that a continuous integration reads; what was there is replaced."""
    for path, make in ((junit, junit_of), (markdown, markdown_of)):
        if path is not None:
            with writing_to(path):
                write_bytes(path, make(found).encode())
