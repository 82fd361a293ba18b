"""`octc train RECIPE` (F03, F16-F20): which command it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from octc.cli._app.shorthand import recipe_names, spelt_out
from tests.cli.conftest import Said


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("kdoct-teacher-neh", "teacher --recipe kd-oct-neh --dataset neh"),
        ("kdoct-teacher-ucsd --folds 5", "teacher --recipe kd-oct-ucsd --dataset ucsd --folds 5"),
        ("kdoct-student-ucsd-as-released", "student --recipe kd-oct-ucsd-as-released --dataset ucsd"),
        ("kdoct-student-neh --dataset mine", "student --recipe kd-oct-neh --dataset mine"),
        ("sfnet --dataset neh", "teacher --recipe sfnet --dataset neh"),
        ("medsiglip-as-released", "teacher --recipe medsiglip-as-released"),
        ("edge --dataset ucsd", "student --recipe edge --with-teacher --dataset ucsd"),
        ("edge --teacher none", "student --recipe edge --teacher none"),
        ("teacher --recipe edge", "teacher --recipe edge"),
        ("--help", "--help"),
    ],
)
def test_a_recipe_stands_for_its_verb(words: str, meant: str) -> None:
    assert spelt_out(["train", *words.split()]) == ["train", *meant.split()]


def test_every_recipe_is_a_word_and_a_wrong_one_gets_the_nearest(said: Said, tmp_path: Path) -> None:
    assert all(spelt_out(["train", name])[2] == "--recipe" for name in recipe_names())
    code, _, err = said("train", "kdoct-techer-neh")
    assert (code, "did you mean `kdoct-teacher-neh`?" in err) == (2, True)
    code, _, err = said("train", "kdoct-teacher-neh", "--data", str(tmp_path))
    assert (code, "OCT-E230" in err or "OCT-E209" in err) == (3, True), err
