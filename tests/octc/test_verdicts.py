"""verify.json of an artifact: whatever is written in whatever order, the first planned verdict stays, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octc.core.errors import OctcError
from octc.store.runs import Run, create_run
from octc.store.verdicts import (
    claims_of,
    headline,
    is_exploratory,
    on_test,
    read_verdict,
    reference_sum,
    word_of,
    write_verdict,
)

SHA = "a" * 64
Written = tuple[str, bool, float, str]  # key, exploratory, margin, word


def document(number: int, exploratory: bool = False, margin: float = 1.0, word: str = "equivalent") -> dict[str, Any]:
    verdict = {"word": word, "exploratory": exploratory}
    return {"verdict": verdict, "time_utc": f"2026-11-30T00:00:{number:02d}Z", "plan": {"margin_pp": margin}, "against": "fp32"}


KEYS, MARGINS, WORDS = ("test", "select", "golden"), (1.0, 2.0), ("fail", "equivalent")
one = st.tuples(st.sampled_from(KEYS), st.booleans(), st.sampled_from(MARGINS), st.sampled_from(WORDS))


@settings(max_examples=60, deadline=None)
@given(st.lists(one, min_size=1, max_size=12))
def test_the_first_planned_verdict_stays_and_what_is_replaced_is_kept(written: list[Written]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        documents = [document(n, key == "test" and away, margin, word) for n, (key, away, margin, word) in enumerate(written)]
        for (key, *_), made in zip(written, documents, strict=True):
            write_verdict(folder, "onnx-int8", SHA, key, made, None)
        value = read_verdict(folder, SHA)
        assert value is not None
        by = {key: [d for (k, *_), d in zip(written, documents, strict=True) if k == key] for key in KEYS}
        planned = [d for d in by["test"] if not is_exploratory(d)]
        away = {d["plan"]["margin_pp"]: d for d in by["test"] if is_exploratory(d)}  # the newest of each plan
        assert value["test"] == (planned[0] if planned else None)
        assert value["repeated"] == (planned[-1] if len(planned) > 1 else None)
        assert value["select"] == (by["select"][-1] if by["select"] else None)
        assert value["golden"] == (by["golden"][-1] if by["golden"] else None)
        assert {d["plan"]["margin_pp"]: d for d in value["exploratory"]} == away
        kept = [json.loads(path.read_text()) for path in folder.glob("samples/*.json")]
        now = [value["test"], value["repeated"], value["select"], value["golden"], *value["exploratory"]]
        stored = sorted(d["time_utc"] for d in (*kept, *(d for d in now if d is not None)))
        assert stored == sorted(d["time_utc"] for d in documents)
        assert on_test(value) == [*planned[-1:], *value["exploratory"]]


def test_what_is_replaced_goes_to_the_run_where_that_is_here(tmp_path: Path) -> None:
    run: Run = create_run(tmp_path / "runs", "student", "folder")
    for number in (1, 1, 2):
        write_verdict(tmp_path, "onnx-int8", SHA, "select", document(number), run)
    assert len(list((run.path / "verify").glob("verify-onnx-int8-select-*.json"))) == 2
    assert not (tmp_path / "samples").exists()


def test_a_verdict_of_another_manifest_or_that_is_damaged_is_none(tmp_path: Path) -> None:
    assert read_verdict(tmp_path, SHA) is None
    write_verdict(tmp_path, "onnx-int8", SHA, "test", document(1), None)
    assert read_verdict(tmp_path, "b" * 64) is None
    whole = (tmp_path / "verify.json").read_bytes()
    (tmp_path / "verify.json").write_bytes(whole[: len(whole) // 2])
    assert read_verdict(tmp_path, SHA) is None
    assert on_test(None) == []
    assert headline(None) is None


def test_an_exploratory_result_of_an_older_octc_is_given_as_one(tmp_path: Path) -> None:
    write_verdict(tmp_path, "onnx-int8", SHA, "test", document(1), None)
    value = json.loads((tmp_path / "verify.json").read_text())
    value["test"]["verdict"]["exploratory"] = True
    (tmp_path / "verify.json").write_text(json.dumps(value))
    found = read_verdict(tmp_path, SHA)
    assert found is not None
    assert (found["test"], len(found["exploratory"])) == (None, 1)
    assert word_of(found["exploratory"][0]) == "equivalent (exploratory)"


def test_golden_images_that_failed_last_stand_for_the_artifact(tmp_path: Path) -> None:
    write_verdict(tmp_path, "onnx-int8", SHA, "golden", document(1, word="fail"), None)
    write_verdict(tmp_path, "onnx-int8", SHA, "test", document(2, word="non_inferior"), None)
    shown = headline(read_verdict(tmp_path, SHA))
    assert shown is not None
    assert word_of(shown) == "non inferior"
    write_verdict(tmp_path, "onnx-int8", SHA, "golden", document(3, word="fail"), None)
    assert (headline(read_verdict(tmp_path, SHA)) or {})["verdict"]["word"] == "fail"


def test_golden_images_that_failed_last_stand_for_it_whatever_the_clock_of_the_box_says(tmp_path: Path) -> None:
    """A box without a clock of its own is years behind the workstation that verified the artifact; a later check ends it."""
    write_verdict(tmp_path, "onnx-int8", SHA, "test", document(2, word="non_inferior"), None)
    behind = {**document(1, word="fail"), "time_utc": "1970-01-01T00:02:00Z"}
    write_verdict(tmp_path, "onnx-int8", SHA, "golden", behind, None)
    shown = headline(read_verdict(tmp_path, SHA))
    assert shown is not None
    assert word_of(shown) == "fail"
    write_verdict(tmp_path, "onnx-int8", SHA, "golden", {**document(1), "time_utc": "1970-01-01T00:03:00Z"}, None)
    assert word_of(headline(read_verdict(tmp_path, SHA)) or {}) == "non inferior"
    stored = json.loads((tmp_path / "verify.json").read_text())
    (tmp_path / "verify.json").write_text(json.dumps({**stored, "golden": document(3, word="fail"), "last": None}))
    assert word_of(headline(read_verdict(tmp_path, SHA)) or {}) == "fail"  # as an older octc wrote it: by the times


MANY = """
import sys
from pathlib import Path
from octc.store.verdicts import write_verdict
for number in range(20):
    verdict = {"word": "equivalent", "exploratory": True}
    plan = {"margin_pp": float(f"{sys.argv[2]}{number:02d}")}
    document = {"verdict": verdict, "time_utc": "2026-11-30T00:00:00Z", "plan": plan}
    write_verdict(Path(sys.argv[1]), "onnx-int8", "a" * 64, "test", document, None)
"""


def test_of_several_that_write_at_once_no_result_is_lost(tmp_path: Path) -> None:
    many = [subprocess.Popen([sys.executable, "-c", MANY, str(tmp_path), str(number)]) for number in (1, 2, 3)]
    assert [process.wait(120) for process in many] == [0, 0, 0]
    found = read_verdict(tmp_path, SHA)
    assert found is not None
    assert len(found["exploratory"]) == 60


def test_claims_are_those_with_numbers_and_name_their_reference() -> None:
    first, bare = {"accuracy": {"n": 1}, "reference": {"artifact_sha256": SHA}}, {"accuracy": None}
    assert list(claims_of({**first, "claims": [bare, {"accuracy": {"n": 2}}]})) == [
        {**first, "claims": [bare, {"accuracy": {"n": 2}}]},
        {"accuracy": {"n": 2}},
    ]
    assert (reference_sum(first), reference_sum({"reference_sha256": SHA}), reference_sum({})) == (SHA, SHA, None)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OctcError) as caught:
        write_verdict(tmp_path / "file", "onnx-int8", SHA, "test", document(1), None)
    assert caught.value.code == "OCT-E109"


@pytest.mark.parametrize("wrong", [
    {"accuracy": {"candidate": "high", "difference_pp": 0.0}}, {"accuracy": {}}, {"classes": [3]}, {"classes": {"CNV": 1}},
    {"classes": [{"name": "CNV", "candidate": {"sens": "all"}}]}, {"calibration": {"reference": {"nll": "x"}}},
    {"calibration": []}, {"confusion": {"candidate": [["many"]]}}, {"confusion": 3},
])  # fmt: skip
def test_what_an_edited_file_says_in_another_type_is_not_read(wrong: dict[str, Any], tmp_path: Path) -> None:
    """Reports that format it would end in the middle."""
    write_verdict(tmp_path, "onnx-int8", SHA, "test", document(1), None)
    assert read_verdict(tmp_path, SHA) is not None
    value = json.loads((tmp_path / "verify.json").read_text())
    value["test"] |= wrong
    (tmp_path / "verify.json").write_text(json.dumps(value))
    assert read_verdict(tmp_path, SHA) is None
