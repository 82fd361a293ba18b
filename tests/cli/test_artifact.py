"""`octc artifact`: signatures, and every reader refusing what was changed after it was signed (B09)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.bench.report.collect.run_summary import read_run_summary
from octc.bench.report.model_card import licences
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.store.artifacts import MANIFEST, read_artifact
from octc.store.find import Found
from octc.store.runs import Run
from octc.store.signature import POLICY, SIGNATURE, TRUSTED
from tests.schema_checks import validate
from tests.tiny_artifacts import resign, shared_run

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    shared = shared_run(tmp_path_factory)
    shutil.copytree(shared.path.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / shared.id).artifacts / "onnx-fp32"


def key_pair(place: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """Files of a private and a public key, as openssl writes them."""
    key = Ed25519PrivateKey.generate()
    kept = NoEncryption() if password is None else BestAvailableEncryption(password)
    private, public = place / f"{name}.pem", place / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "mine")


def code_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code, and the code of the error on stderr ("" for none)."""
    capsys.readouterr()
    exit_code = main(words)
    err = capsys.readouterr().err
    return exit_code, err.partition("error[")[2].partition("]")[0]


def test_public_sets_that_share_images_with_the_data_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of OCTMNIST: it was made from UCSD, so UCSD is no independent test of a network that learned from it."""
    known = read_artifact(folder)
    assert known.lineage["shared_images"] == []  # a folder of one's own: nothing is stated
    resign(folder, lambda value: value["lineage"].update(dataset="octmnist"))
    assert main(["artifact", "licences", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    validate(document, schema_of("artifact licences"))
    (one,) = document["data"]["artifacts"]
    assert {row["data_set"] for row in one["shared_images"]} == {"ucsd", "oct-c8"}
    summary = read_run_summary([Found(folder, read_artifact(folder))], folder.parent.parent.parent)
    rows = {what: source for what, _, source in licences(summary)}
    assert rows["images in ucsd too"] == next(row["source"] for row in one["shared_images"] if row["data_set"] == "ucsd")


def test_signed_artifact_is_read_and_names_its_key(
    folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys
    assert main(["artifact", "sign", str(folder), "--key", str(private)]) == 0
    who = capsys.readouterr().out.split()[-1]
    assert main(["artifact", "verify", str(folder), "--key", str(public), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["verified"][0]["key"] == who
    assert code_of(["artifact", "sign", str(folder), "--key", str(private)], capsys) == (2, "OCT-E106")
    monkeypatch.setenv(POLICY, "required")
    monkeypatch.setenv(TRUSTED, str(public))
    assert read_artifact(folder).name == "onnx-fp32"


def change_weights(folder: Path) -> None:
    """One byte of the model, with sums made to fit: what a careful attacker does."""
    path = folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    kept = (folder / SIGNATURE).read_bytes()
    (folder / SIGNATURE).unlink()
    resign(folder)
    (folder / SIGNATURE).write_bytes(kept)


def change_classes(folder: Path) -> None:
    value = json.loads((folder / MANIFEST).read_text())
    value["classes"] = value["classes"][::-1]
    (folder / MANIFEST).write_text(json.dumps(value))


def change_signature(folder: Path) -> None:
    value = json.loads((folder / SIGNATURE).read_text())
    value["signature"] = value["signature"][::-1] if value["signature"] != value["signature"][::-1] else "AAAA"
    (folder / SIGNATURE).write_text(json.dumps(value))


def cut_signature(folder: Path) -> None:
    (folder / SIGNATURE).write_bytes((folder / SIGNATURE).read_bytes()[:40])


@pytest.mark.parametrize("spoil", [change_weights, change_classes, change_signature, cut_signature])
def test_b09_every_reader_refuses_what_was_changed(
    folder: Path, keys: tuple[Path, Path], spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["artifact", "sign", str(folder), "--key", str(keys[0])]) == 0
    spoil(folder)
    picture = next((tmp_path / "runs").parent.rglob("*.p*"), tmp_path)
    for words in (["predict", str(folder), str(picture)], ["verify", str(folder)], ["bench", str(folder), "--dry-run"],
                  ["report", str(folder), "-o", str(tmp_path / "r")], ["artifact", "verify", str(folder)]):  # fmt: skip
        assert code_of(words, capsys) == (3, "OCT-E507"), words
    with pytest.raises(OctcError, match=r"signed|signature"):
        read_artifact(folder)


def test_b09_policy_wants_a_signature_by_a_trusted_key(
    folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = ["bench", str(folder), "--dry-run", "--vs", "none"]
    monkeypatch.setenv(POLICY, "required")
    assert code_of(bench, capsys) == (2, "OCT-E104")
    monkeypatch.setenv(TRUSTED, str(keys[1]))
    assert code_of(bench, capsys) == (3, "OCT-E507")
    stranger = key_pair(tmp_path, "stranger")[0]
    assert main(["artifact", "sign", str(folder.parent / "openvino-int8"), "--key", str(keys[0])]) == 0
    assert code_of(["bench", str(folder.parent / "openvino-int8"), "--dry-run", "--vs", "none"], capsys) == (0, "")
    for name in (POLICY, TRUSTED):
        monkeypatch.delenv(name)
    assert main(["artifact", "sign", str(folder), "--key", str(stranger)]) == 0
    assert code_of(["artifact", "verify", str(folder), "--key", str(keys[1])], capsys) == (3, "OCT-E507")
    assert code_of(["artifact", "verify", str(folder.parent / "onnx-int8")], capsys) == (3, "OCT-E507")


def test_keys_that_cannot_be_used(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "x25519.pem"
    other.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    locked = key_pair(tmp_path, "locked", b"open sesame")[0]
    for path in (tmp_path / "nowhere.pem", other, locked):
        assert code_of(["artifact", "sign", str(folder), "--key", str(path)], capsys) == (3, "OCT-E507"), path
    assert not (folder / SIGNATURE).exists()
    monkeypatch.setenv("OCTC_KEY_PASSWORD", "open sesame")
    assert main(["artifact", "sign", str(folder), "--key", str(locked)]) == 0
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert code_of(["artifact", "verify", str(folder)], capsys) == (4, "OCT-E901")
