"""The plan on file and the uses of the test set: what is planned, what is exploratory, what is counted."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from octc.bench.parity.plan_lock import PLAN, Access, planned_options, register_use
from octc.core.errors import OctcError
from octc.core.files import read_json, write_json
from octc.stats.test_plan import ParityOptions
from octc.store.runs import Run, create_run
from octc.store.test_set_log import read_log


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
    (row,) = first.log.readings
    assert (row.time_utc, row.command, row.artifacts, row.plan) == (NOW, "verify", {"a": "1", "b": "2"}, "planned")
    assert row.options == {**DECIDES, **MORE}
    again = register_use(run, DECIDES, MORE, {"b": "2"}, {"b": "2"}, LATER)
    assert (again.uses, again.reasons) == (1, {"2": None})  # the same artifact with the same options is no new use
    rest = register_use(run, DECIDES, MORE, {"c": "3"}, {"c": "3"}, LATER)  # planned, but it did not run before
    assert (rest.uses, rest.reasons) == (2, {"3": None})


def test_another_artifact_after_a_look_is_exploratory(run: Run) -> None:
    register_use(run, DECIDES, MORE, {"a": "1"}, {"a": "1"}, NOW)
    second = register_use(run, DECIDES, MORE, {"a": "9"}, {"a": "9"}, LATER)
    assert second.uses == 2
    assert second.why("9") == "this artifact is not one of those that the plan was made for; test set used 2 times"
    assert second.log.readings[-1].plan == "exploratory"


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
        "import sys; from pathlib import Path; from octc.bench.parity.plan_lock import register_use; "
        "from octc.store.runs import Run\n"
        "for i in range(10): register_use(Run(Path(sys.argv[1])), {}, {}, {'a': f'{sys.argv[2]}-{i}'}, {'a': '0'}, 'now')"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(run.path), str(number)]) for number in range(3)]
    assert [one.wait(60) for one in started] == [0, 0, 0]
    assert len(read_log(run.path).readings) == read_log(run.path).uses == 30


LOOK = Access(32, "s1", {"fp32": "f", "teacher": "t"})
BOTH = {"against": ["fp32", "teacher"], "tta": "none"}


def test_who_states_nothing_gets_the_locked_plan_and_who_states_something_gets_the_rest_of_it(run: Run) -> None:
    locked = ParityOptions(margin=2, class_margin=5, claim="tost", plan_discordance=0.1, bootstrap=2000, seed=7)
    assert planned_options(run, ParityOptions(), frozenset()) == ParityOptions()  # there is no plan yet
    register_use(run, locked.locked(), BOTH, {"a": "1"}, {"a": "1"}, NOW, replace(LOOK, resamples=locked.resamples()))
    assert planned_options(run, ParityOptions(), frozenset()) == locked
    assert planned_options(run, ParityOptions(seed=8), frozenset({"seed"})) == replace(locked, seed=8)
    stated = planned_options(run, ParityOptions(margin=4), frozenset({"margin"}))
    assert stated == replace(locked, margin=4)
    assert planned_options(run, ParityOptions(), None) == ParityOptions()  # all of them are stated
    why = register_use(run, stated.locked(), BOTH, {"a": "1"}, {"a": "1"}, LATER, LOOK).why("1", "fp32") or ""
    assert "margin 2 -> 4" in why
    assert "class_margin" not in why


def test_a_margin_that_is_stated_and_equal_is_the_plan(run: Run) -> None:
    register_use(run, ParityOptions(margin=2).locked(), BOTH, {"a": "1"}, {"a": "1"}, NOW, LOOK)
    same = register_use(run, ParityOptions(margin=2.0).locked(), BOTH, {"a": "1"}, {"a": "1"}, LATER, LOOK)
    assert (same.why("1", "fp32"), same.log.readings[-1].plan, len(same.log.readings), same.uses) == (None, "planned", 2, 1)


@pytest.mark.parametrize(
    ("look", "more", "exploratory"),
    [
        (replace(LOOK, references={"fp32": "other", "teacher": "t"}), BOTH, {"fp32": True, "teacher": False}),
        (replace(LOOK, references={"fp32": "f"}), {**BOTH, "against": ["fp32"]}, {"fp32": False}),
        (replace(LOOK, references={"teacher": "t"}), {**BOTH, "against": ["teacher"]}, {"teacher": True}),
        (replace(LOOK, split_digest="s2"), BOTH, {"fp32": True, "teacher": True}),
        (LOOK, {**BOTH, "tta": "5"}, {"fp32": False, "teacher": False}),
    ],
)
def test_another_reference_order_or_split_is_exploratory(
    run: Run, look: Access, more: dict[str, object], exploratory: dict[str, bool]
) -> None:
    register_use(run, DECIDES, BOTH, {"a": "1"}, {"a": "1"}, NOW, LOOK)
    later = register_use(run, DECIDES, more, {"a": "1"}, {"a": "1"}, LATER, look)
    assert {claim: later.why("1", claim) is not None for claim in look.references} == exploratory
    assert (later.why("1", "fp32", str(more["tta"])) is not None) == (more["tta"] != "none" or exploratory.get("fp32", False))
    assert register_use(run, DECIDES, BOTH, {"a": "1"}, {"a": "1"}, LATER, LOOK).why("1", "teacher") is None


@pytest.mark.parametrize(("name", "value"), [
    ("margin", "wide"), ("margin", -1), ("claim", "x"), ("alpha", None), ("order", [1.5]), ("order", "fp32"),
    ("order", {"fp32": 1}),
    ("references", ["fp32"]), ("references", None), ("locked_at", None), ("locked_at", 3),
])  # fmt: skip
def test_a_plan_that_says_nonsense_is_refused(run: Run, name: str, value: object) -> None:
    register_use(run, DECIDES, BOTH, {"a": "1"}, {"a": "1"}, NOW, LOOK)
    document = read_json(run.path / PLAN)
    document["plan"][name] = value
    write_json(run.path / PLAN, document)
    with pytest.raises(OctcError) as caught:
        planned_options(run, ParityOptions(), frozenset())
    assert caught.value.code == "OCT-E709"


def test_a_plan_of_an_older_octc_holds_for_what_it_says(run: Run) -> None:
    plan = {**DECIDES, "locked_at": NOW, "artifacts": {"a": "1"}}
    write_json(run.path / PLAN, {"schema_version": "1.0", "plan": plan, "uses": []})
    assert register_use(run, DECIDES, BOTH, {"a": "1"}, {"a": "1"}, LATER, LOOK).why("1", "teacher", "5") is None
