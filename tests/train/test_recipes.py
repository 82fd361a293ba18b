"""Recipes: complete, plain data that comes back from JSON, with the values of the specification."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

from octc.core.errors import OctcError
from octc.train.recipes.config import Distillation, with_fields
from octc.train.recipes.registry import DEFAULT, RECIPES, stored_recipe
from octc.train.recipes.weight_packages import PACKAGES

# values of KD-OCT: its teacher and its student on UCSD
TEACHER = {
    "model": "convnextv2_large.fcmae_ft_in22k_in1k", "size": 384, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
    "epochs": 150, "batch": 64, "accumulate": 1, "lr": 1e-4, "decay": 0.05, "warmup": 10, "clip": 0.0, "patience": 25,
    "model_kwargs": {"drop_rate": 0.3, "drop_path_rate": 0.3},
}  # fmt: skip
STUDENT = {
    "size": 384, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "epochs": 100, "batch": 16, "accumulate": 2,
    "lr": 1e-3, "decay": 0.01, "warmup": 5, "clip": 0.0, "patience": 20, "ema": 0.0, "model_kwargs": {"drop_rate": 0.3},
}  # fmt: skip
TEACHER_VIEWS = {
    "rotate": 20, "shear": 15, "scale": 0.15, "hflip": 0.5, "vflip": 0.3, "brightness": 0.3, "contrast": 0.3, "blur": 0.2,
    "erase": 0.25, "erase_area": 0.15,
}  # fmt: skip
STUDENT_VIEWS = {
    "rotate": 15, "shear": 0, "scale": 0, "hflip": 0.5, "vflip": 0, "brightness": 0.2, "contrast": 0.2, "blur": 0, "erase": 0.2,
    "erase_area": 0.1,
}  # fmt: skip


def test_kd_oct_has_the_values_of_the_specification() -> None:
    recipe = RECIPES["kd-oct"]()
    teacher, student = asdict(recipe.teacher), asdict(recipe.student)
    assert {name: teacher[name] for name in TEACHER} == TEACHER
    assert {name: student[name] for name in STUDENT} == STUDENT
    assert student["model"] in ("efficientnet_b2", "efficientnet_b2.ra_in1k")
    assert recipe.teacher.lr * recipe.teacher.floor == pytest.approx(1e-7)
    assert recipe.student.lr * recipe.student.floor == pytest.approx(1e-6)
    assert {name: teacher["augment"][name] for name in TEACHER_VIEWS} == TEACHER_VIEWS
    assert {name: student["augment"][name] for name in STUDENT_VIEWS} == STUDENT_VIEWS
    for views in (teacher["augment"], student["augment"]):
        assert views["translate"] == pytest.approx(16 / 416, abs=0.002)  # a random crop of 384 out of 416
    assert recipe.distillation == Distillation(temperature=4.0, alpha=0.7)


def test_edge_is_the_pair_whose_weights_come_from_the_packages() -> None:
    recipe = RECIPES["edge"]()
    assert DEFAULT == "edge"
    for stage, name in ((recipe.teacher, "tf_efficientnet_lite2"), (recipe.student, "tf_efficientnet_lite0")):
        assert (stage.model, stage.weights) == (name, "package")
        assert name in PACKAGES
        assert stage.mean == stage.std == (0.5, 0.5, 0.5)  # what timm says of these weights
    assert recipe.distillation == Distillation(temperature=4.0, alpha=0.7)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_from_json_and_describes_itself(name: str) -> None:
    make = RECIPES[name]
    recipe = make()
    assert recipe.name == name
    assert stored_recipe(json.loads(json.dumps(asdict(recipe)))) == recipe
    assert stored_recipe(asdict(recipe)) == recipe
    text = str(make.__doc__)
    assert "Command:" in text
    assert "octc " in text
    assert "ost" in text  # its cost
    assert 0 < recipe.val < 0.5


@pytest.mark.parametrize("name", ["edge", "kd-oct", "smoke"])
def test_networks_of_the_recipes_can_be_built(name: str) -> None:
    from octc.train.networks.models import build_model

    recipe = RECIPES[name]()
    with torch.device("meta"):
        for stage in (recipe.teacher, recipe.student):
            build_model(stage.model, 4, **stage.model_kwargs)


def test_fields_of_both_stages_are_replaced_together() -> None:
    recipe = with_fields(RECIPES["smoke"](), epochs=2, lr=0.5)
    assert (recipe.teacher.epochs, recipe.student.epochs, recipe.teacher.lr, recipe.student.lr) == (2, 2, 0.5, 0.5)
    assert with_fields(recipe) is recipe
    assert replace(recipe, val=0.3).val == 0.3


@pytest.mark.parametrize(("field", "value"), [("invented", 1), ("epochs", "3"), ("epochs", 2.5), ("lr", None), ("mean", [0.5])])
def test_a_stored_recipe_of_other_fields_or_types_is_refused(field: str, value: object) -> None:
    stored = asdict(RECIPES["smoke"]())
    stored["student"][field] = value
    with pytest.raises(OctcError, match=field) as caught:
        stored_recipe(stored)
    newer = field == "invented"
    assert caught.value.code == ("OCT-E509" if newer else "OCT-E107")
    assert ("pip install -U octc" if newer else "octc list recipes") in caught.value.hint


def test_recipes_are_listed_without_torch() -> None:
    code = (
        "import sys; from octc.train.recipes.registry import RECIPES\n"
        "[recipe() for recipe in RECIPES.values()]; print('torch' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"
