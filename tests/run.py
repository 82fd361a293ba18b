"""Runs all tests in two processes: python tests/run.py [pytest options].

First, in one process, those that send a signal to it (marker `alone`); then two groups of folders, each in fresh workers and
each file in one of them, so that what a file makes once is made once. A group is run again, once, and said so, when its only
trouble was that a worker was killed from outside (LOG.md, 2026-11-27); a test that fails is never run again.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ALONE = ("-m", "alone")
WORKERS = ("-n", "2", "--dist", "loadfile", "--max-worker-restart", "0", "-m", "not alone")
GROUPS = (
    ("tests/octc", "tests/train", "tests/compress", "tests/export"),
    ("tests/runtimes", "tests/bench", "tests/cli", "tests/house", "tests/packaging"),
)
PLACE = re.compile(r"tests/|.*\.py(::|$)")  # an option that says which tests, instead of the groups
NONE_CHOSEN = 5  # pytest's word for it: ARGS may choose tests of one group alone
KILLED = "node down: Not properly terminated"


def run(words: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and output of one pytest; the output is shown as it comes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    code = process.wait()
    return (0 if code == NONE_CHOSEN else code), "".join(lines)


def only_killed(output: str) -> bool:
    """Whether nothing failed but the tests that a worker was at when it was killed."""
    failed = re.findall(r"^(?:FAILED|ERROR) .*", output, re.M)
    return KILLED in output and all("crashed while running" in line for line in failed)


def main(more: tuple[str, ...]) -> int:
    start, counts, worst = time.monotonic(), Counter[str](), 0
    groups = ((),) if any(PLACE.match(word) and Path(word.partition("::")[0]).exists() for word in more) else GROUPS
    for words in ((*ALONE, *more), *((*WORKERS, *more, *group) for group in groups)):
        code, output = run(words)
        if code and only_killed(output):
            sys.stdout.write("a worker was killed from outside: this group is run again, once\n")
            code, output = run(words)
        summary = output.rstrip().rpartition("\n")[2]
        counts.update({what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|errors?|skipped)", summary)})
        worst = worst or code
    told = ", ".join(f"{number} {what}" for what, number in counts.items())
    sys.stdout.write(f"{told} in {time.monotonic() - start:.0f}s\n")
    return worst


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:])))
