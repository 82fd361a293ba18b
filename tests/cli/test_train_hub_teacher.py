"""`octc train student --teacher hub:OWNER/NAME`: network, classes, normalisation and licence are those of its config.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from octc.core.errors import OctcError
from octc.datasets.licences import terms_of
from octc.imaging.preprocess import Preprocess
from octc.train.jobs.hub_teacher import Card, beside, from_hub, read_card
from octc.train.networks.models import build_model
from octc.train.recipes.registry import RECIPES
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said

__all__ = ["one_processor", "patterns", "said"]  # fixtures
STAGE = RECIPES["smoke"]().teacher
REVISION = "0" * 40


def config(**more: Any) -> dict[str, Any]:
    """As timm writes it."""
    inner = {"mean": [0.3, 0.3, 0.3], "std": [0.2, 0.2, 0.2], "input_size": [3, 40, 40], "license": "cc-by-nc-4.0"}
    return {"architecture": STAGE.model, "num_classes": 4, "pretrained_cfg": inner, **more}


def put_hub(cache: Path, name: str, stated: dict[str, Any]) -> None:
    """A repository in the hub's cache, as the hub's own library lays it out."""
    torch.manual_seed(1)
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(REVISION)
    folder = place / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(stated))
    save_file(build_model(STAGE.model, 4, **STAGE.model_kwargs).state_dict(), folder / "model.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    constants: Any = pytest.importorskip("huggingface_hub.constants")
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_what_a_config_states_is_taken_and_what_it_does_not_is_left(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(label_names=["a", "b"])))
    card = read_card(path, "hub o/n")
    assert (card.architecture, card.classes, card.licence, card.size) == (STAGE.model, ("a", "b"), "cc-by-nc-4.0", 40)
    before = Preprocess(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize="bicubic")
    made = card.prepared(before)
    assert (made.size, made.mean, made.std, made.resize) == (40, (0.3, 0.3, 0.3), (0.2, 0.2, 0.2), "bicubic")
    assert Card("x").prepared(before) == before
    (tmp_path / "w.safetensors").write_bytes(b"")
    found = beside(tmp_path / "w.safetensors")
    assert found is not None
    assert found.source == "file w.safetensors"


@pytest.mark.parametrize("text", ["[]", "{}", '{"architecture": "x", "pretrained_cfg": {"mean": [1, 2]}}', "no json"])
def test_a_config_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(OctcError) as error:
        read_card(tmp_path / "config.json", "hub o/n")
    assert error.value.code == "OCT-E307"


def test_a_name_that_is_none_and_a_repository_that_is_not_here(cache: Path) -> None:
    for name, code in (("hub:alone", "OCT-E104"), ("hub:../../etc/passwd", "OCT-E104"), ("hub:o/absent", "OCT-E310")):
        with pytest.raises(OctcError) as error:
            from_hub(name, fetch=False)
        assert error.value.code == code, name
    assert not cache.exists() or not list(cache.glob("**/*.safetensors"))


@pytest.mark.slow
def test_a_student_of_a_hubs_teacher_is_taught_with_its_normalisation_and_keeps_its_licence(
    said: Said, tmp_path: Path, cache: Path
) -> None:
    put_hub(cache, "o/n", config())
    code, _, out = said("student", *SMOKE, "--epochs", "1", "--teacher", "hub:o/n", "--any-teacher")
    assert code == 0, out
    assert "hub o/n" in out
    (folder,) = (tmp_path / "runs" / ".teachers").iterdir()
    stored = json.loads((folder / "checkpoint.json").read_text())
    assert (stored["preprocess"]["mean"], stored["preprocess"]["size"]) == ([0.3, 0.3, 0.3], 40)
    student = next((tmp_path / "runs").glob("r-*-student-*/train/checkpoint.json"))
    parent = json.loads(student.read_text())["parent"]
    terms = terms_of({"dataset": "ucsd", "weights": {"source": "random", "licence": "none"}, "parent": parent}, "net")
    assert [term.use for term in terms if term.what == "teacher's start weights"] == ["refused"]
    shutil.rmtree(cache)
    put_hub(cache, "o/n", config(label_names=["x", "y", "z", "w"]))
    code, _, out = said("student", *SMOKE, "--teacher", "hub:o/n", "--dry-run")
    assert (code, "OCT-E309" in out) == (3, True)
