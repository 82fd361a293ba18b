"""The README and docs/ are true: commands run, tables are those of the code, files that are named exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from octc.cli._app.commands import GROUPS
from octc.core.codes import CODES
from octc.datasets.registry import DATASETS
from tests.house.tree import FLOORS, ROOT, files, pyproject

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```sh\n(.*?)```", re.S)


def marked() -> list[str]:
    """Blocks of commands that stand below `<!-- test -->`."""
    return re.findall(r"<!-- test -->\s*```sh\n(.*?)```", README, re.S)


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    text = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("block", marked(), ids=lambda block: block.split("\n")[0])
def test_the_commands_run(block: str, tmp_path: Path, shared: Path, warm: tuple[str, ...]) -> None:
    path = f"{shared / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "-eu", "-c", block]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "error[" not in done.stderr
    assert "Traceback" not in done.stderr
    for word in block.split():
        if word.startswith("Dataset/"):
            assert word in done.stdout


def test_there_are_commands_to_run() -> None:
    assert len(marked()) == README.count("<!-- test -->") > 0
    assert all("octc " in block for block in marked())


def test_the_three_commands_stand_there_as_they_are() -> None:
    block = BLOCK.findall(README.partition("\n## The three commands\n")[2])[0]
    assert block.split("\n")[:3] == ["octc train student --dataset ucsd", "octc export --int8 --target openvino", "octc bench"]
    assert "octc export --int8 --target tensorrt" in README


def test_the_whole_way_is_what_the_demo_does() -> None:
    demo = re.findall(r"^octc [^|\n]*[^|\s]", (ROOT / "benchmarks" / "demo.sh").read_text(), re.M)
    block = next(block for block in BLOCK.findall(README) if "octc verify --against fp32" in block)
    ours = block.strip().split("\n")
    assert [line for line in demo if line in ours] == ours


def test_the_demo_ends_in_a_damaged_file_that_is_caught() -> None:
    """The script fails where the copy is not refused, and where the sound file does not pass."""
    text = (ROOT / "benchmarks" / "demo.sh").read_text()
    assert re.search(r"^set -eu$", text, re.M)
    assert re.search(r"^octc verify --against fp32 [^|]*$", text, re.M)  # no `|| ...` behind it
    assert re.search(r'damage\.py" \S+ damaged\ncode=0\noctc verify damaged', text)
    assert text.index('if [ "$code" -ne 1 ]') > text.index("octc verify damaged")


def test_the_tree_holds_every_folder_and_package() -> None:
    text = README.partition("\n## The house\n")[2].partition("```\n")[2].partition("```")[0]
    lines = [re.fullmatch(r"( *)([\w-]+)/ +(\S.*)", line) for line in text.splitlines()]
    told: dict[str, str] = {}
    top = ""
    for line in lines:
        assert line is not None
        top = top if line[1] else line[2]
        name = f"{top}/{line[2]}" if line[1] else line[2]
        assert name not in told
        told[name] = line[3]
    folders = {path.relative_to(ROOT).parts[0] for path in files() if path.parent != ROOT}
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/*/__init__.py") if path.parts[-3] in FLOORS}
    assert set(told) == {name for name in folders if not name.startswith(".")} | packages
    contributing = dict(re.findall(r"^\| `(\w+)` \| .+? \| (.+?) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M))
    assert set(contributing) == set(FLOORS)
    for name, what in contributing.items():
        assert told[name].startswith(what)


def test_the_picture_is_what_its_script_draws() -> None:
    assert "](docs/pipeline.svg)" in README
    command = [sys.executable, str(ROOT / "benchmarks" / "pipeline.py")]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert done.stdout == (ROOT / "docs" / "pipeline.svg").read_bytes(), "python benchmarks/pipeline.py > docs/pipeline.svg"


def test_the_results_are_those_of_the_long_table() -> None:
    """Size, accuracy, sensitivity, agreement and verdict of each row; nothing that was INVALID or not measured."""
    long = (ROOT / "docs" / "results.md").read_text()
    assert len(rows("Results")) == 5
    for row in rows("Results"):
        assert f"| {' | '.join(row[1:])} |" in re.sub(r"\| +\|", "|  |", long)
        assert "INVALID" not in " ".join(row)


def test_the_table_of_data_sets_is_the_data_sets() -> None:
    table = {row[0].strip("`"): row for row in rows("Data sets")}
    assert set(table) == set(DATASETS)
    for name, spec in DATASETS.items():
        assert table[name][2] == spec.licence
        for doi in re.findall(r"doi:(\S+)", spec.source):
            assert doi.rstrip(".,") in table[name][3] or table[name][3] == "the same"


def test_the_table_of_exit_codes_holds_every_one() -> None:
    listed = {int(number) for row in rows("What an exit code means") for number in row[0].split(",")}
    assert listed == {exit_code for exit_code, _ in CODES.values()} | {129, 130, 141, 143}


def test_every_extra_has_its_machine() -> None:
    text = " ".join(row[1] for row in rows("Set up")) + README
    for extra in pyproject()["project"]["optional-dependencies"]:
        assert re.search(rf"\[[a-z,]*\b{extra}\b[a-z,]*\]", text), extra


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_targets_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"`make ([a-z]+)", text):
        assert re.search(rf"^{name}:", makefile, re.M), name


def anchors(page: Path) -> set[str]:
    """What links of a page may name behind `#`: its headings, as GitHub spells them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


TODAY = [page for page in PAGES if page.name != "experiments.md"]


@pytest.mark.parametrize("page", TODAY, ids=lambda page: page.name)
def test_commands_options_codes_and_headings_that_a_page_names_exist(page: Path) -> None:
    from octc.cli._app.main import _arranged, _chosen

    text = page.read_text(encoding="utf-8")
    frozen = json.loads((ROOT / "tests" / "house" / "options.json").read_text())
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    lines = [line for block in blocks for line in re.split(r"\n|&&|\|(?= )|;", block.replace("\\\n", " "))]
    lines += [
        " ".join(line.split())
        for line in re.findall(r"`(octc [a-z][^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    ]
    for line in (line.partition("#")[0].strip() for line in lines):
        if not line.startswith("octc "):
            continue
        words = line.split()[1:]
        chosen = _chosen(_arranged(words))
        assert chosen is not None or words[0].startswith("-") or words[0] in GROUPS, line
        if chosen is not None:
            known = {
                name for one in (*frozen["commands"][chosen.name]["options"], *frozen["common"]) for name in one.split("/")
            }
            asked = {word for part in words for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", part)}
            assert asked <= known, line
    assert set(re.findall(r"OCT-[EW]\d{3}", text)) <= set(CODES)
    for target, _, head in (link.partition("#") for link in re.findall(r"\]\((?!http)([^)]*#[^)]+)\)", text)):
        assert head in anchors((page.parent / target) if target else page), f"{target}#{head}"


@pytest.mark.parametrize("page", TODAY, ids=lambda page: page.name)
def test_modules_that_a_page_names_exist(page: Path) -> None:
    """Paths in backticks, of the repository or below tests/; dated experiments keep the names of their day."""
    folders = "|".join((*FLOORS, "tests", "benchmarks", "examples", "docs"))
    named = re.findall(rf"`((?:{folders})/[\w/.*-]*)`", page.read_text(encoding="utf-8"))
    there = {name for name in named for top in (ROOT, ROOT / "tests") if list(top.glob(name.rstrip("/")))}
    assert not set(named) - there


def test_every_page_can_be_reached_from_the_readme() -> None:
    assert {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"} <= set(re.findall(r"\]\(([^)#]+)\)", README))


def test_it_says_what_octc_is_not() -> None:
    assert "not a medical device" in README
