"""What the artifacts decide by, and whether the test set showed that their promises are kept (docs/abstention.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from octc.bench.report.collect.run_summary import RunSummary
from octc.bench.report.page import Block, Section, Table, Text
from octc.stats.deciding import UNITS, stated_decision, words_of

COLUMNS = ("artifact", "of", "promise", "promised %", "reference %", "artifact % [95 % by patient]", "n", "")
WHAT = {"referred": "referred, at most", "risk": "wrong among kept, at most"}


def rules_section(summary: RunSummary) -> Section | None:
    """Rules of each artifact, and a row for each promise that a verification judged; None where no artifact has rules."""
    told = [(found.artifact.name, unit, words) for found in summary.found for unit, words in _stated(found.artifact)]
    if not told:
        return None
    rows = [row for name, document in summary.verdicts.items() for row in promise_rows(name, document)]
    judged: Block = Table(COLUMNS, rows) if rows else Text("Not judged on the test set here: octc verify", "warn")
    stated = [(name, f"{unit}s", text) for name, unit, texts in told for text in texts]
    blocks: list[Block] = [Table(("artifact", "of", "what it decides by, as chosen on the validation set"), stated), judged]
    blocks += [Text(f"{row[0]}: {row[2]} is shown not to be kept.", "warn") for row in rows if row[-1] == "broken"]
    return Section(
        "rules", "Operating points, sets, referrals", blocks, {name: one.get("rules") for name, one in summary.verdicts.items()}
    )


def _stated(artifact: Any) -> Iterator[tuple[str, list[str]]]:
    for unit in UNITS:
        if (rules := stated_decision(artifact.details, artifact.classes, unit)) is not None:
            yield unit, words_of(rules)


def promise_rows(name: str, document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row (`COLUMNS`) for each promise of an artifact that a verification judged."""
    for found in document.get("rules") or ():
        before = {(one["what"], one["name"]): one for one in (found["reference"] or {}).get("promises", ())}
        for one in (found["candidate"] or {}).get("promises", ()):
            whose = "" if one["name"] == "all" else f" of {one['name']}"
            was = before.get((one["what"], one["name"]), {}).get("value")
            low, high = one["clustered"]
            value = "no image" if one["value"] is None else f"{100 * one['value']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
            yield (
                name, f"{found['unit']}s", f"{WHAT.get(one['what'], one['what'])}{whose}", f"{100 * one['level']:g}",
                "" if was is None else f"{100 * was:.2f}", value, str(one["n"]), one["word"],
            )  # fmt: skip


def broken_promises(document: Mapping[str, Any] | None) -> list[str]:
    """Promises of the artifact's rules that a verification showed not to be kept, in words."""
    rows = [row for row in promise_rows("", document or {}) if row[-1] == "broken"]
    return [f"{what} {level} % is promised for {unit}, and {value} % is found" for _, unit, what, level, _, value, _, _ in rows]
