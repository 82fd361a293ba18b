"""The linter's verdicts against NVIDIA's compiler on generated Q/DQ graphs: how often both say the same. Nothing is executed.

python benchmarks/lint_oracle.py [FIRST COUNT]     default: seeds 70000 to 70599
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.export.oracle import agreement, judge, promised
from tests.export.qdq_random import random_model


def main(words: list[str]) -> None:
    """Graphs that promise INT8 somewhere are judged; `laxer` are those that the linter passes and the compiler does not."""
    first, count = (int(words[0]), int(words[1])) if words else (70_000, 600)
    made = {f"seed-{seed}": random_model(seed) for seed in range(first, first + count)}
    graphs = {name: one for name, one in made.items() if promised(one)}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        verdicts = judge(graphs, Path(folder))
    disagree, laxer = agreement(graphs, verdicts)
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(verdicts.values()).items()))
    share = 100 * (1 - len(disagree) / len(graphs))
    sys.stdout.write(
        f"{len(graphs)} of {count} graphs promise INT8 ({kinds}; {time.monotonic() - started:.0f} s): {share:.2f} % agree; "
        f"laxer than the compiler: {', '.join(laxer) or 'none'}\nothers: {'; '.join(map(str, disagree)) or 'none'}\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
