"""What a search may be asked for: budgets, candidates of one's own, engines; and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.export.search.budget import read_budget
from octc.export.search.candidates import KNOWN, base_recipe, engines_of, kwargs_of, read_candidates, recipe_of
from octc.export.search.select import Budget
from octc.schemas.search import Candidate, SearchOptions
from octc.train.recipes.config import HALF, IMAGENET

GOOD = {"name": "a", "model": "tf_efficientnet_lite0", "size": 160, "weights": "package"}


@pytest.mark.parametrize(
    ("texts", "budget"),
    [(["5ms"], Budget(ms=5)), (["0.005 s", "4MB"], Budget(ms=5, mb=4)), (["4MiB,20mJ"], Budget(mb=4.194304, mj=20)),
     (["500us", "900kB", "0.02J"], Budget(ms=0.5, mb=0.9, mj=20))],
)  # fmt: skip
def test_a_budget_is_read_with_its_units(texts: list[str], budget: Budget) -> None:
    assert read_budget(texts).to_json() == pytest.approx(budget.to_json())


@pytest.mark.parametrize(
    ("texts", "code"),
    [([], "OCT-E104"), (["5"], "OCT-E104"), (["5 apples"], "OCT-E104"), (["0ms"], "OCT-E104"), (["-5ms"], "OCT-E104"),
     ([""], "OCT-E104"), (["5ms", "6ms"], "OCT-E102"), (["4MB,1MiB"], "OCT-E102"), (["nanms"], "OCT-E104")],
)  # fmt: skip
def test_what_is_no_budget_is_refused(texts: list[str], code: str) -> None:
    with pytest.raises(OctcError) as caught:
        read_budget(texts)
    assert caught.value.code == code
    assert caught.value.hint


def written(folder: Path, *candidates: Any, **more: Any) -> Path:
    path = folder / "candidates.json"
    path.write_text(json.dumps({"candidates": candidates, **more}))
    return path


def test_candidates_of_ones_own_are_read(tmp_path: Path) -> None:
    found = read_candidates(written(tmp_path, GOOD, {**GOOD, "name": "b", "activation": "hard-swish", "target": "onnx"}))
    assert [one.name for one in found] == ["a", "b"]
    assert kwargs_of(found[1]) == {"act_layer": "hard_swish"}
    (changed,) = read_candidates(written(tmp_path, {**GOOD, "squeeze_excite": False, "prune": 0.5}))
    assert (changed.squeeze_excite, changed.prune, kwargs_of(changed)) == (False, 0.5, {})
    assert read_candidates(None) == KNOWN


@pytest.mark.parametrize(
    ("candidates", "code", "words"),
    [
        ([], "OCT-E105", "candidates"),
        ([{"name": "a"}], "OCT-E105", "model"),
        ([{**GOOD, "sise": 3}], "OCT-E105", "sise"),
        ([{**GOOD, "size": 8}], "OCT-E105", "size"),
        ([{**GOOD, "weights": "imagenet"}], "OCT-E105", "weights"),
        ([{**GOOD, "name": "../a"}], "OCT-E105", "name"),
        ([GOOD, GOOD], "OCT-E104", "one name: a"),
        ([GOOD, {**GOOD, "name": "b"}], "OCT-E104", "one network: a, b"),
        ([{**GOOD, "activation": "relu", "model_kwargs": {"act_layer": "silu"}}], "OCT-E104", "act_layer"),
        ([{**GOOD, "prune": 0.9}], "OCT-E105", "prune"),
        ([{**GOOD, "prune": 0.5, "model_kwargs": {"simplified": []}}], "OCT-E104", "prune"),
        ([{**GOOD, "squeeze_excite": False, "model_kwargs": {"simplified": []}}], "OCT-E104", "squeeze_excite"),
    ],
)
def test_candidates_that_are_none_are_refused(tmp_path: Path, candidates: list[Any], code: str, words: str) -> None:
    with pytest.raises(OctcError) as caught:
        read_candidates(written(tmp_path, *candidates))
    assert caught.value.code == code
    assert words in caught.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        read_candidates(tmp_path / "none.json")
    assert caught.value.code == "OCT-E105"


def test_a_candidate_is_the_recipe_with_another_student() -> None:
    base = base_recipe("edge")
    found = recipe_of(read_candidates(None)[0], base, 3, 4)
    assert (found.teacher, found.quantisation, found.val) == (base.teacher, base.quantisation, base.val)
    assert (found.student.size, found.student.epochs, found.student.mean) == (128, 3, HALF[0])
    assert found.distillation.views == 3, "no more views than epochs"
    hub = next(one for one in KNOWN if one.weights == "hub")
    assert recipe_of(hub, base, 12, 4).student.mean == IMAGENET[0]
    plain = Candidate(name="x", model="m", weights="none")
    assert recipe_of(plain, base, 12, 4).student.mean == base.student.mean
    assert len({(one.model, one.size, one.activation) for one in KNOWN}) == len(KNOWN)


def test_recipes_and_engines_that_a_search_cannot_use_are_refused() -> None:
    for name in ("no-such", "medsiglip"):
        with pytest.raises(OctcError) as caught:
            base_recipe(name)
        assert caught.value.code == "OCT-E104"
    assert engines_of(SearchOptions(target="onnx")) == ("onnx",)
    for wrong in ("tensorrt", "onnx,", "torch"):
        with pytest.raises(OctcError) as caught:
            engines_of(SearchOptions(target=wrong))
        assert caught.value.code == "OCT-E104"
