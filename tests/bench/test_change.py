"""`octc dossier OLD NEW`: what differs, what was tested, what is not known; signatures that OpenSSF's client verifies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import octc
from octc.bench.report.change import materials_of, read_change, sections_of
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.store.artifacts import read_artifact, write_manifest
from octc.store.find import Found
from octc.store.oms import SIGNATURE, fingerprint_of
from octc.store.runs import Run
from tests.bench.verify_world import change_constants
from tests.schema_checks import validate


@pytest.fixture
def pair(made: Run, tmp_path: Path) -> tuple[Path, Path]:
    """An INT8 artifact, and one of changed weights whose lineage names other data and a teacher."""
    old, new = (Path(shutil.copytree(made.artifacts / "onnx-int8", tmp_path / name / "onnx-int8")) for name in ("old", "new"))
    change_constants(new, lambda name, value: value * (1.01 if name == "conv2.weight_scale" else 1), golden=True)
    artifact = read_artifact(new)
    teacher = {"model": "convnextv2_tiny", "weights": {"source": "a copy", "licence": "apache-2.0"}}
    lineage = {**artifact.lineage, "dataset": "ucsd", "run": "r-0009", "parent": teacher, "versions": {"onnx": "2.0"}}
    write_manifest(new, replace(artifact, lineage=lineage))
    return old, new


def dossier(pair: tuple[Path, Path], tmp_path: Path) -> Any:
    sides = [Found(folder, read_artifact(folder)) for folder in pair]
    return read_change(sides[0], sides[1], tmp_path / "runs", "2026-01-01T00:00:00Z")


def test_what_differs_is_listed_under_its_head(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = dossier(pair, tmp_path)
    rows = {(one.group, one.what): (one.old, one.new) for one in found.changes}
    assert rows["data", "dataset"] == ("folder", "ucsd")
    assert rows["training", "run"][1] == "r-0009"
    assert "CC-BY-NC-4.0" in rows["weights", "teacher's start weights"][1]
    assert rows["engine", "made with onnx"] == ("not recorded", "2.0")
    assert rows["graph", "file"][0] != rows["graph", "file"][1]
    assert not [key for key in rows if key[0] == "interface"]
    assert not [key for key in rows if key[1].startswith("operators")]  # the same graph with other numbers
    assert any("commercial use refused" in text for text in found.unknown)
    assert any("not verified on labelled images" in text for text in found.unknown)


def test_rules_and_every_teacher_are_part_of_what_changed(pair: tuple[Path, Path], tmp_path: Path) -> None:
    artifact = read_artifact(pair[1])
    teachers = [{"model": name, "weights": {"source": f"{name} of a hub", "licence": "mit"}} for name in ("first", "second")]
    details = {**artifact.details, "decision": {"image": {"chosen_on": "val", "split_digest": "0", "time_utc": "now"}}}
    write_manifest(pair[1], replace(artifact, details=details, lineage={**artifact.lineage, "parent": {"teachers": teachers}}))
    rows = {(one.group, one.what): one.new for one in dossier(pair, tmp_path).changes}
    assert "chosen_on" in rows["interface", "decision"]
    told = rows["weights", "teacher's start weights"]
    assert ("first of a hub" in told, "second of a hub" in told) == (True, True)


def test_artifacts_of_other_classes_are_said_to_answer_other_questions(pair: tuple[Path, Path], tmp_path: Path) -> None:
    artifact = read_artifact(pair[1])
    rules = {"image": {"chosen_on": "val", "split_digest": "0", "time_utc": "now"}}
    details = {**artifact.details, "decision": rules}
    write_manifest(pair[1], replace(artifact, classes=("bright", "dark", "lying", "macular hole"), details=details))
    found = dossier(pair, tmp_path)
    (told,) = [text for text in found.unknown if "different questions" in text]
    assert "only the old: upright; only the new: macular hole" in told
    assert any(text.startswith("new: no test says whether the rules") for text in found.unknown)
    assert not [text for text in dossier((pair[0], pair[0]), tmp_path).unknown if "different questions" in text]


def test_an_artifact_beside_itself_has_no_change(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = dossier((pair[0], pair[0]), tmp_path)
    assert found.changes == ()
    assert set(map(tuple, found.materials.values())) == {()}


def test_other_operators_and_precisions_are_a_change_of_the_graph_and_the_engine(made: Run, tmp_path: Path) -> None:
    found = dossier((made.artifacts / "onnx-fp32", made.artifacts / "onnx-int8"), tmp_path)
    rows = {(one.group, one.what): (one.old, one.new) for one in found.changes}
    assert rows["engine", "precision"] == ("fp32", "int8")
    assert rows["graph", "operators QuantizeLinear"] == ("not recorded", "2")


def test_stored_verdicts_are_what_was_tested(pair: tuple[Path, Path], tmp_path: Path, made: Run) -> None:
    shutil.copytree(made.path, tmp_path / "runs" / made.id)
    words = ["--bootstrap", "1000", "--run-dir", str(tmp_path / "runs")]
    octc.fit_rules(
        tmp_path / "runs" / made.id / "artifacts" / "onnx-int8",
        octc.SetOptions(sets="lac", coverage=0.8),
        run_dir=tmp_path / "runs",
    )
    main(["verify", str(tmp_path / "runs" / made.id / "artifacts" / "onnx-int8"), *words])
    found = dossier((tmp_path / "runs" / made.id / "artifacts" / "onnx-int8", pair[1]), tmp_path)
    told = {(one.artifact, one.what) for one in found.tested}
    assert {("old", "golden images"), ("old", "accuracy"), ("old", "sensitivity dark")} <= told
    promises = [one for one in found.tested if one.what == "rules (images): coverage of dark"]
    assert [one.result.rpartition("promised ")[2].split(" %")[0] for one in promises] == ["80"]
    assert not any("no test says whether the rules" in text for text in found.unknown)
    assert not [one for one in told if one[0] == "new"]


def test_bills_of_materials_differ_in_what_was_added_removed_and_changed() -> None:
    def bill(**versions: str) -> dict[str, Any]:
        return {"components": [{"type": "library", "name": name, "version": value} for name, value in versions.items()]}

    found = materials_of(bill(a="1", b="1", c="1"), bill(b="1", c="2", d="1"))
    assert found == {"added": ["library d"], "removed": ["library a"], "changed": ["library c: 1 -> 2"]}


def test_the_command_writes_three_forms_and_both_bills(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dossier", str(pair[0]), str(pair[1]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    validate(document, schema_of("dossier"))
    folder = Path(document["data"]["folder"])
    assert {one.name for one in folder.iterdir()} == {
        "dossier.html", "dossier.md", "dossier.json", "old.cdx.json", "new.cdx.json",
    }  # fmt: skip
    bill = json.loads((folder / "new.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert (folder / "dossier.md").read_text().count("\n## ") == len(sections_of(dossier(pair, tmp_path)))


def keys(folder: Path) -> tuple[Path, Path]:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    private = ec.generate_private_key(ec.SECP256R1())
    kinds = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(private.private_bytes(pem, kinds[0], serialization.NoEncryption()))
    (folder / "key.pub").write_bytes(private.public_key().public_bytes(pem, kinds[1]))
    return folder / "key.pem", folder / "key.pub"


def test_whoever_signs_is_called_as_whoever_is_verified(tmp_path: Path) -> None:
    private, public = keys(tmp_path)
    (tmp_path / "other").mkdir()
    assert fingerprint_of(private) == fingerprint_of(public) != fingerprint_of(keys(tmp_path / "other")[1])
    with pytest.raises(OctcError, match="cannot be used"):
        fingerprint_of(tmp_path / "absent.pem")


def test_a_signature_of_model_signing_is_verified_by_its_own_client(pair: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("model_signing.signing")
    private, public = keys(tmp_path)
    folder = pair[0]
    (folder / "verify.json").write_text("{}")  # measured before, and not signed
    assert main(["artifact", "sign", str(folder), "--key", str(private), "--format", "oms"]) == 0
    assert main(["artifact", "sign", str(folder), "--key", str(private), "--format", "oms"]) == 2  # there is one
    assert main(["artifact", "verify", str(folder), "--key", str(public), "--format", "oms"]) == 0
    client = [sys.executable, "-m", "model_signing", "verify", "key", str(folder), "--public_key", str(public)]
    client += ["--signature", str(folder / SIGNATURE), "--ignore_unsigned_files"]
    assert subprocess.run(client, capture_output=True, check=False).returncode == 0
    signed = json.loads((folder / SIGNATURE).read_text())
    assert "dsseEnvelope" in signed
    read_artifact(folder)  # nothing that may not lie there
    (folder / "golden.npz").write_bytes((folder / "golden.npz").read_bytes() + b" ")
    assert subprocess.run(client, capture_output=True, check=False).returncode != 0


def test_another_key_and_no_key_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("model_signing.signing")
    from octc.store.oms import sign_oms, verify_oms

    private, _ = keys(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = keys(tmp_path / "other")
    with pytest.raises(OctcError) as error:
        verify_oms(pair[0], other)
    assert error.value.code == "OCT-E507"
    sign_oms(pair[0], private)
    with pytest.raises(OctcError, match="not valid"):
        verify_oms(pair[0], other)
    with pytest.raises(OctcError, match="cannot be used"):
        sign_oms(pair[0], tmp_path / "nothing.pem")
    assert main(["artifact", "verify", str(pair[0]), "--format", "oms"]) == 2
