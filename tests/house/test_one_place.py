"""A decision that has one home is made nowhere else: where its words may stand in the source."""

from __future__ import annotations

import pytest

from tests.house.tree import ROOT, sources

HOMES = {
    "where the images of a run are": ('.get("data_root")', {"octc/store/locations.py"}),
    "the run of an artifact": ("def run_of", {"octc/store/locations.py"}),
    "which words show a claim": ('("non_inferior", "equivalent")', {"octc/stats/verdict.py"}),
    "whether a verdict shows its claim": ("return Verdict(", {"octc/stats/verdict.py"}),
    "which of several errors ends a command": ("EXIT_ORDER.index", {"octc/core/errors.py"}),
    "a session of onnxruntime": (".InferenceSession(", {"runtimes/onnxrt.py", "runtimes/probe.py", "export/usage.py"}),
    "whether golden images decode as they did": ("check_input(golden", {"runtimes/golden.py"}),
    "the part of a split that a set is": ('"select": "val"', {"octc/datasets/split.py"}),
    "how pixels are normalised": ("1 / 255 / s", {"octc/imaging/preprocess.py"}),
    "threads that read files": ("sched_getaffinity", {"octc/machine/cpu.py"}),
    "who opens an artifact": (":open_ov", {"octc/core/targets.py"}),
    "the identity of an artifact": ("sha256_file(folder / MANIFEST)", {"octc/store/artifacts.py"}),
    "what several errors raise": ("== 1 else Several(", {"octc/core/errors.py"}),
    "the first line of an error, which may have no text": ("str(error).splitlines()[0]", set()),
    "a lock": ("fcntl.flock(", {"octc/core/locks.py"}),
    # the others lie in a run, or in such a folder, and go with it
    "a temporary folder": ("tempfile.mkdtemp(", {"octc/core/scratch.py", "export/pipeline.py", "serve/uploads.py"}),
    "a temporary folder of a run": ("tempfile.TemporaryDirectory(", {"export/run.py", "export/ptq/compare.py"}),
    "the opsets of a target": ("Reads(", {"export/formats.py"}),
}


@pytest.mark.parametrize("decision", sorted(HOMES))
def test_a_decision_has_one_home(decision: str) -> None:
    words, homes = HOMES[decision]
    found = {path.relative_to(ROOT).as_posix() for path in sources()
             if words in path.read_text()}  # fmt: skip
    assert found == homes
