"""Compares two results of `octc bench`: what changed, and whether the ratios of the same pair agree.

Numbers from different machines, profiles, thread counts or files, or from INVALID rows, are never combined in a ratio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.bench.timing.latency import spell_number
from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.schemas.bench import BenchResult
from octc.schemas.common import convert

AGREE = 1.10  # ratios of the same pair in two runs agree within 10 %
MACHINE = ("name", "cpu_model", "cpu_class", "cores_physical")
SETTINGS = ("profile", "threads")


@dataclass(frozen=True)
class Line:
    """A quantity in both results. change: second over first, or None with the reason."""

    what: str
    first: str
    second: str
    change: float | None
    reason: str
    agrees: bool | None = None

    def cells(self) -> tuple[str, ...]:
        return self.what, self.first, self.second, self.reason if self.change is None else f"x{self.change:.3f}"


@dataclass(frozen=True)
class Changes:
    """Comparison of two results: their run ids, reasons why they are not comparable, and a line per common quantity."""

    runs: tuple[str, str]
    not_comparable: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def apart(self) -> list[Line]:
        """Ratios of the same pair that differ by more than 10 %."""
        return [line for line in self.lines if line.agrees is False]

    @property
    def sentence(self) -> str:
        """A sentence with the number of ratios that agree."""
        count = sum(line.agrees is not None for line in self.lines)
        return f"{count - len(self.apart)} of {count} ratios agree within {100 * (AGREE - 1):.0f} %"

    def raise_if_apart(self, place: str) -> None:
        """Raise OctcError E607 if two valid ratios of the same pair differ by more than 10 %."""
        if self.apart:
            text = f"ratios of the same pair differ by more than {100 * (AGREE - 1):.0f} %: {self.apart[0].what}"
            raise OctcError("OCT-E607", text, hint="end other programs and measure both again", place=place)

    def to_json(self) -> dict[str, Any]:
        """The document that `octc bench --compare --json` prints."""
        return {
            "runs": list(self.runs),
            "not_comparable": list(self.not_comparable),
            "lines": [vars(line) for line in self.lines],
        }


def compare_files(first: Path, second: Path) -> Changes:
    """Compare two result files of `octc bench`.

    Raises:
        OctcError: E102 they have no row and no comparison in common; E107, E502 as `read_result`.
    """
    one, two = read_result(first), read_result(second)
    found = tuple(lines(one, two))
    if not found:
        text = "the two results have no row and no comparison in common"
        raise OctcError("OCT-E102", text, hint="give results of the same artifacts", place=f"{first} {second}")
    return Changes((one["run_id"], two["run_id"]), tuple(why_not_comparable(one, two)), found)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result of `octc bench` (OctcError E107: no such file, E502: not a result of this version)."""
    hint = "a bench-*.json that octc bench wrote"
    if not path.is_file():
        raise OctcError("OCT-E107", f"no result at {path}", hint=hint, place=str(path))
    try:
        value = read_json(path)
        value = value["data"] if value.get("command") == "bench" and "data" in value else value
        convert(value, BenchResult, path)
    except (OSError, ValueError, AttributeError) as error:
        raise OctcError("OCT-E502", f"not a result of octc bench: {error}", hint=hint, place=str(path)) from error
    return dict(value)


def why_not_comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The differences between machines or settings that make the results not comparable."""
    pairs = [
        (key, first[part].get(key), second[part].get(key))
        for part, keys in (("machine", MACHINE), ("settings", SETTINGS))
        for key in keys
    ]
    return [f"{key} {one} and {two}" for key, one, two in pairs if one != two]


def lines(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Line]:
    """The medians of the rows and then the ratios of the comparisons that are in both results."""
    apart = why_not_comparable(first, second)
    sums = [{a["id"]: a["sha256"] for a in value["artifacts"]} for value in (first, second)]
    rows = [{r["id"]: r for r in value["rows"] if r.get("latency_ms")} for value in (first, second)]
    for name in (name for name in rows[0] if name in rows[1]):
        one, two = rows[0][name], rows[1][name]
        same = sums[0].get(one["artifact"]) == sums[1].get(two["artifact"])
        reason = "not comparable" if apart else "other files" if not same else _invalid(one, two)
        shown = [_shown(row["latency_ms"]["p50"]) for row in (one, two)]
        values = [row["latency_ms"]["p50"]["value"] for row in (one, two)]
        yield Line(f"p50 of {name}, ms", shown[0], shown[1], None if reason else values[1] / values[0], reason)
    found = [
        {(c["kind"], c["candidate_row"], c["reference_row"]): c for c in value["comparisons"]} for value in (first, second)
    ]
    for key in (key for key in found[0] if key in found[1]):
        one, two = found[0][key], found[1][key]
        reason = "not comparable" if apart else _invalid(one, two)
        change = None if reason else two["ratio"]["value"] / one["ratio"]["value"]
        what = f"ratio {key[0].replace('_', ' ')}: {key[1]} and {key[2]}"
        agrees = None if change is None else max(change, 1 / change) <= AGREE
        yield Line(what, _shown(one["ratio"]), _shown(two["ratio"]), change, reason, agrees)


def _invalid(one: Mapping[str, Any], two: Mapping[str, Any]) -> str:
    return "" if one["status"] == two["status"] == "VALID" else f"{one['status']} and {two['status']}"


def _shown(measure: Mapping[str, Any]) -> str:
    if measure.get("value") is None:
        return str(measure.get("reason", "null"))
    limits = measure.get("ci95")
    text = spell_number(measure["value"])
    return text if not limits else f"{text} [{spell_number(limits[0])}, {spell_number(limits[1])}]"
