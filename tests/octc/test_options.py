"""An options dataclass as the options of a command, and a reporter for whoever runs a job without a terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from octc.cli._app.commands import command_of
from octc.cli._app.session import Session
from octc.core.options import Key, described, keys_of, option, typed
from octc.core.progress import LogReporter, Reporter
from octc.schemas.configuration import KEYS
from octc.schemas.requests import BenchOptions
from octc.stats.test_plan import ParityOptions


@dataclass(frozen=True)
class Wanted:
    """Options of a job that the tests make up."""

    name: str = option(shown="A name")
    times: int | None = option(None, shown="How often", within=(1, None), key=Key(int, low=1))
    loud: bool = option(True, shown="Loud or not", names=("--loud/--soft",))
    inner: str = "not offered"


def job(session: Session, wanted: Wanted, place: Path = Path("here")) -> int:
    """A job."""
    session.report({"name": wanted.name, "times": wanted.times, "loud": wanted.loud, "place": place})
    return 0


def run(args: list[str]) -> int:
    app = typer.Typer()
    app.command()(command_of(job, "job"))
    return int(app(args, standalone_mode=False) or 0)


def test_the_fields_of_a_dataclass_are_options_and_reach_the_function_as_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert [one.name for one in described(Wanted)] == ["name", "times", "loud"]
    assert run(["--name", "a", "--times", "3", "--soft", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == {"name": "a", "times": 3, "loud": False, "place": "here"}


def test_the_least_number_of_a_field_is_checked() -> None:
    with pytest.raises(Exception, match=r"at least 1|greater than or equal to 1"):
        run(["--name", "a", "--times", "0"])


def test_a_reporter_for_the_library_keeps_its_warnings() -> None:
    reporter = LogReporter()
    asked: Reporter = reporter
    asked.warn("OCT-W101", "something", "file")
    with asked.progress("work", 3) as step:
        step(3)
    assert reporter.warnings == [{"code": "OCT-W101", "message": "something", "path": "file"}]


def test_keys_of_the_configuration_stand_at_their_options() -> None:
    assert keys_of(Wanted) == {"times": Key(int, low=1)}
    assert len(keys_of(BenchOptions)) == 3
    assert KEYS["bench"].items() >= keys_of(BenchOptions).items()


@pytest.mark.parametrize(
    "options",
    [ParityOptions(), ParityOptions(margin=0.1 + 0.2, plan_discordance=0.07, claim="tost", seed=3, auc_margin=1.5)],
)
def test_options_that_are_typed_for_another_machine_are_the_same_there(options: ParityOptions) -> None:
    """To the last bit, also those that are typed in percent: another margin would not be that of the plan."""
    heard: list[ParityOptions] = []

    def verdict(session: Session, margins: ParityOptions) -> int:
        heard.append(margins)
        return 0

    app = typer.Typer()
    app.command()(command_of(verdict, "verify"))
    assert app(typed(options), standalone_mode=False) == 0
    assert heard == [options]


def test_switches_are_typed_by_the_name_of_what_they_are() -> None:
    assert typed(Wanted("a", loud=False)) == ["--name", "a", "--soft"]
    assert typed(BenchOptions(power=False, quick=True, vs="none"))[-3:] == ["--vs", "none", "--no-power"]
