"""docs/parity.md and docs/measurement.md: what the code cites is there, and their tables hold the numbers of the code."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

import pytest

from octc.bench.timing.latency import PERCENTILES, TAIL
from octc.bench.timing.profiles import QUICK, STANDARD
from octc.runtimes.golden import TOLERANCES
from octc.stats.power import exact_power, smallest_n
from octc.stats.proportions import tango_interval
from octc.stats.test_plan import ParityOptions
from tests.house.tree import ROOT, files

PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("parity.md", "measurement.md")}
CITED = re.compile(r"docs/(parity|measurement)\.md,\s+sections? ((?:[\d.]+(?:, | and )?)+)")
UNNAMED = re.compile(r"section \d[\d.]* of the (contract|method|parity|measurement)")


def citations() -> list[tuple[str, str, str]]:
    """(file, page, section) of every citation in the code and its tests."""
    found = []
    for path in files():
        if path.suffix == ".py" and path.name != "test_methods.py":
            for page, numbers in CITED.findall(path.read_text(encoding="utf-8")):
                sections = (number.rstrip(".") for number in re.split(r", | and ", numbers) if number)
                found += [(str(path.relative_to(ROOT)), f"{page}.md", section) for section in sections]
    return found


def sections(page: str) -> set[str]:
    """Numbers of the headings; in the check values, a number in brackets marks a table of them."""
    return set(re.findall(r"^#{2,3} ([\d.]+?)\.? ", PAGES[page], re.M)) | set(re.findall(r"\((14\.\d)\)", PAGES[page]))


def test_every_section_that_the_code_cites_is_there() -> None:
    assert len(citations()) > 40
    assert not [one for one in citations() if one[2] not in sections(one[1])]


@pytest.mark.parametrize("page", PAGES)
def test_sections_are_numbered_without_a_gap(page: str) -> None:
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", PAGES[page], re.M)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_no_citation_leaves_its_page_unnamed() -> None:
    texts = {
        path: path.read_text(encoding="utf-8") for path in files() if path.suffix == ".py" and path.name != "test_methods.py"
    }
    assert not [path for path, text in texts.items() if UNNAMED.search(text)]


def table(page: str, head: str) -> list[list[str]]:
    """Cells of the table below the row of heads that begins so."""
    lines = PAGES[page].partition(f"\n| {head} ")[2].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_tolerances_are_those_of_the_code() -> None:
    rows = {row[0]: row for row in table("parity.md", "id | pair")}
    assert set(rows) == set(TOLERANCES)
    for name, one in TOLERANCES.items():
        agreement = float(rows[name][4].partition(",")[0])
        assert (float(rows[name][2]), float(rows[name][3]), agreement) == (one.delta_over_s, one.kl_mean, one.agreement)
        assert ("near ties" in rows[name][4]) == one.near_ties


def test_the_defaults_are_those_of_the_code() -> None:
    defaults = ParityOptions()
    rows = {row[2].split("`")[1].split()[0]: row[1] for row in table("parity.md", "setting | default")}
    assert float(rows["--alpha"]) == defaults.alpha
    assert rows["--margin"].startswith(f"{defaults.margin:g} ")
    assert rows["--class-margin"].startswith(f"{defaults.class_margin:g} ")
    assert float(rows["--ece-slack"]) == defaults.ece_slack
    assert rows["--bootstrap"] == f"{defaults.bootstrap:,}, {defaults.seed}"
    assert f"`{defaults.claim}`" in rows["--test"]
    assert rows["--tier"].startswith(defaults.tier)


def test_the_smallest_numbers_of_samples_are_those_of_the_code() -> None:
    text = PAGES["measurement.md"].partition("\n| percentile |")[2]
    names = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    numbers = [int(cell) for cell in text.splitlines()[2].strip("|").split("|")[1:]]
    assert names == list(PERCENTILES)
    for name, n in zip(names, numbers, strict=True):
        share = float(Fraction(PERCENTILES[name]))
        assert share**n <= TAIL < share ** (n - 1)


def test_the_minimum_runs_are_those_of_the_code() -> None:
    for row in table("measurement.md", "scenario | load"):
        assert f"{STANDARD.duration_s:g} s and {STANDARD.min_queries:,} " in row[3]
    quick = f"({QUICK.duration_s:g} s and {QUICK.min_queries} queries, {QUICK.reference_queries} for the teacher"
    assert quick in " ".join(PAGES["measurement.md"].split())


def test_the_examples_are_what_the_code_computes() -> None:
    text = " ".join(PAGES["parity.md"].split())
    sizes = [smallest_n(margin, 0.05) for margin in (0.01, 0.02, 0.03)]
    assert "({} images for 1 point, {} for 2, {} for 3)".format(*sizes) in text
    powers = [exact_power(393, 0.005, margin) for margin in (0.01, 0.02)]
    assert (
        f"planned power of {powers[0]:.3f} for a margin of 1 point at 0.5 % discordance, and {powers[1]:.3f} for 2 points"
        in text
    )
    for n, lost, gained, deff in ((1000, 5, 3, 1.0), (1000, 5, 3, 1.289889), (250, 0, 0, 1.0)):
        low, high = tango_interval(n / deff, lost / deff, gained / deff)
        named = f"{n}, {lost}, {gained}" + (f", deff {deff}" if deff > 1 else "")
        assert f"| {named} | [{100 * low:.3f}, {100 * high:.3f}] |" in text
