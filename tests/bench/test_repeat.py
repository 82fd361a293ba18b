"""`octc bench --compare`: two results beside each other."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from octc.bench.timing.compare_results import lines, read_result
from octc.cli._app.main import main
from octc.core.errors import OctcError
from tests.bench.test_bench_schema import EXAMPLE


def result(ratio: float | None = 8.0, p50: float = 3.0, **machine: Any) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(EXAMPLE)
    found["rows"][0]["latency_ms"]["p50"] = {"value": p50, "ci95": [p50 * 0.99, p50 * 1.01]}
    measure = {"value": None, "reason": "unsteady"} if ratio is None else {"value": ratio, "ci95": [ratio * 0.98, ratio * 1.02]}
    found["comparisons"][0].update(ratio=measure, status="INVALID" if ratio is None else "VALID", interleave="blocks", pairs=10)
    found["machine"].update(machine)
    return found


def written(place: Path, *documents: dict[str, Any]) -> list[str]:
    names = []
    for number, document in enumerate(documents):
        (place / f"{number}.json").write_text(json.dumps(document))
        names.append(str(place / f"{number}.json"))
    return names


def test_ratios_within_ten_percent_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--compare", *written(tmp_path, result(8.0), result(8.7, 3.3))]) == 0
    out = capsys.readouterr().out
    assert "x1.087" in out
    assert "x1.100" in out
    assert "1 of 1 ratios agree within 10 %" in out


def test_ratios_further_apart_end_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--compare", *written(tmp_path, result(8.0), result(7.0))]) == 1
    assert "error[OCT-E607]: ratios of the same pair differ by more than 10 %" in capsys.readouterr().err


def test_invalid_numbers_and_other_machines_never_enter_a_ratio() -> None:
    (_, pair) = lines(result(8.0), result(None))
    assert (pair.change, pair.reason, pair.agrees) == (None, "VALID and INVALID", None)
    assert all(line.change is None and line.reason == "not comparable" for line in lines(result(), result(cpu_model="another")))
    other = result()
    other["artifacts"][0]["sha256"] = "1" * 64
    assert next(iter(lines(result(), other))).reason == "other files"


def test_files_that_are_no_results(tmp_path: Path) -> None:
    for text, code in ((None, "OCT-E107"), ("{", "OCT-E502"), ("[]", "OCT-E502"), ('{"command": "verify"}', "OCT-E502")):
        path = tmp_path / "x.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(OctcError) as caught:
            read_result(path)
        assert caught.value.code == code
    assert main(["bench", "--compare", str(tmp_path / "x.json")]) == 2
