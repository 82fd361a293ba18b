"""The plan on file and the uses of the test set: what is planned, what is exploratory, what is counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from octc.bench.verify_lock import PLAN, register_use
from octc.errors import OctcError
from octc.files import read_json
from octc.plan import ParityOptions
from octc.run import Run, create_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "runs", "student", "folder")


DECIDES = ParityOptions().locked()
NOW, LATER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
MORE = {"against": ["fp32"], "tta": "none"}


def test_the_first_call_is_one_planned_family(run: Run) -> None:
    first = register_use(run, DECIDES, MORE, {"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}, NOW)
    assert (first.locked_at, first.uses, first.reasons) == (NOW, 1, {"1": None, "2": None})
    document = read_json(run.path / PLAN)
    assert document["plan"]["artifacts"] == {"a": "1", "b": "2", "c": "3"}
    assert document["uses"] == [{"time_utc": NOW, "artifacts": {"a": "1", "b": "2"}, "options": {**DECIDES, **MORE}}]
    again = register_use(run, DECIDES, MORE, {"b": "2"}, {"b": "2"}, LATER)
    assert (again.uses, again.reasons) == (1, {"2": None})  # the same artifact with the same options is no new use
    rest = register_use(run, DECIDES, MORE, {"c": "3"}, {"c": "3"}, LATER)  # planned, but it did not run before
    assert (rest.uses, rest.reasons) == (2, {"3": None})


def test_another_artifact_after_a_look_is_exploratory(run: Run) -> None:
    register_use(run, DECIDES, MORE, {"a": "1"}, {"a": "1"}, NOW)
    second = register_use(run, DECIDES, MORE, {"a": "9"}, {"a": "9"}, LATER)
    assert second.uses == 2
    assert second.reasons["9"] == "this artifact is not one of those that the plan was made for; test set used 2 times"


@pytest.mark.parametrize("changed", [{"margin": 2.0}, {"class_margin": 5.0}, {"alpha": 0.1}, {"plan_discordance": 0.001}])
def test_other_margins_than_the_locked_ones_are_exploratory_and_the_lock_stays(run: Run, changed: dict[str, float]) -> None:
    register_use(run, DECIDES, MORE, {"a": "1"}, {"a": "1"}, NOW)
    second = register_use(run, {**DECIDES, **changed}, MORE, {"a": "1"}, {"a": "1"}, LATER)
    assert (second.locked_at, second.uses) == (NOW, 2)
    assert next(iter(changed)) in (second.reasons["1"] or "")
    assert register_use(run, DECIDES, MORE, {"a": "1"}, {"a": "1"}, LATER).reasons == {"1": None}


def test_seed_and_resamples_do_not_count_but_other_views_are_a_new_use(run: Run) -> None:
    register_use(run, DECIDES, MORE, {"a": "1"}, {"a": "1"}, NOW)
    assert register_use(run, ParityOptions(seed=3, bootstrap=5000).locked(), MORE, {"a": "1"}, {"a": "1"}, LATER).uses == 1
    five = register_use(run, DECIDES, {**MORE, "tta": "5"}, {"a": "1"}, {"a": "1"}, LATER)
    assert (five.uses, five.reasons) == (2, {"1": None})


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": "1.0", "plan": {}, "uses": []}'])
def test_a_damaged_record_of_the_uses_is_refused_and_left_as_it_is(run: Run, text: str) -> None:
    (run.path / PLAN).write_text(text)
    with pytest.raises(OctcError) as caught:
        register_use(run, DECIDES, MORE, {"a": "1"}, {"a": "1"}, NOW)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E709", 3)
    assert (run.path / PLAN).read_text() == text


def test_processes_that_look_at_once_are_all_counted(run: Run) -> None:
    script = (
        "import sys; from pathlib import Path; from octc.bench.verify_lock import register_use; from octc.run import Run\n"
        "for i in range(10): register_use(Run(Path(sys.argv[1])), {}, {}, {'a': f'{sys.argv[2]}-{i}'}, {'a': '0'}, 'now')"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(run.path), str(number)]) for number in range(3)]
    assert [one.wait(60) for one in started] == [0, 0, 0]
    assert len(read_json(run.path / PLAN)["uses"]) == 30
