"""Errors: codes that exist, exit codes that follow, several at once, and the way through a process pool."""

from __future__ import annotations

import pickle

import pytest

from octc.core.codes import CODES, EXIT_ORDER
from octc.core.errors import MissingExtra, OctcError, Several, combined, first_line, shorten


def test_an_error_carries_its_facts_through_a_pickle() -> None:
    error = OctcError("OCT-E230", "not found", hint="--data DIR", place="here", why="because")
    back = pickle.loads(pickle.dumps(error))
    assert (back.code, back.message, back.hint, back.place, back.why) == (
        "OCT-E230",
        "not found",
        "--data DIR",
        "here",
        "because",
    )
    assert back.exit_code == 3
    assert str(back) == "not found"


def test_a_code_that_is_not_in_the_catalogue_is_a_mistake_of_octc() -> None:
    with pytest.raises(KeyError):
        OctcError("OCT-E000", "x", hint="y")


def test_a_missing_extra_names_the_pip_line_also_behind_a_pickle() -> None:
    error = MissingExtra("openvino", "openvino")
    assert (error.code, error.exit_code) == ("OCT-E901", 4)
    assert error.message == "openvino is not installed"
    assert pickle.loads(pickle.dumps(error)).hint == "pip install 'octc[openvino]'"


def test_of_several_the_worst_gives_code_and_exit_and_all_are_kept() -> None:
    codes = ["OCT-E704", "OCT-E104", "OCT-E201", "OCT-E606", "OCT-E901", "OCT-E301", "OCT-E999"]
    for count in range(1, len(codes) + 1):
        several = Several([OctcError(code, code, hint="m") for code in codes[:count]])
        assert several.code == codes[count - 1]
        assert [error.code for error in several.errors] == codes[:count]
    assert [CODES[code][0] for code in reversed(codes)] == list(EXIT_ORDER)


def test_the_first_of_two_equally_bad_ones_speaks() -> None:
    several = Several([OctcError("OCT-E201", "first", hint="m"), OctcError("OCT-E202", "second", hint="m")])
    assert several.message == "first"


def test_long_lists_are_shortened() -> None:
    names = [str(number) for number in range(47)]
    assert shorten(names[:10]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert shorten(names) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 … and 37 more (--json for all)"
    assert shorten([]) == ""


def test_one_error_is_raised_as_it_is_and_more_as_several() -> None:
    one, other = (OctcError(code, "text", hint="hint") for code in ("OCT-E104", "OCT-E201"))
    assert combined([one]) is one
    both = combined([one, other])
    assert isinstance(both, Several)
    assert both.errors == [one, other]


def test_an_error_without_a_text_is_named_by_its_kind() -> None:
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(ValueError("long"), 2) == "lo"
