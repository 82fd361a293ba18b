"""Signatures of artifacts: who signed holds, and nothing else does, whatever is changed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.store.find import Found
from octc.store.signature import POLICY, SIGNATURE, TRUSTED, check_signature, sign
from octc.store.signing import sign_artifacts, verify_artifacts

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

PLAIN = NoEncryption()


def write_key(place: Path, key: Any, how: KeySerializationEncryption = PLAIN) -> tuple[Path, Path]:
    """Files of a private and a public key, as openssl writes them."""
    private, public = place.with_suffix(".pem"), place.with_suffix(".pub")
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def mine(tmp_path: Path) -> tuple[Path, Path]:
    return write_key(tmp_path / "mine", Ed25519PrivateKey.generate())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "onnx-int8"
    place.mkdir()
    (place / "artifact.json").write_text('{"name": "onnx-int8"}')
    return place


def found(folder: Path) -> Found:
    return Found(folder, cast(Any, SimpleNamespace(name=folder.name, files={"model.onnx": 1})))


def check(folder: Path, **policy: str) -> str | None:
    return check_signature(folder, sha256_file(folder / "artifact.json"), policy)


def refused(folder: Path, **policy: str) -> tuple[str, str]:
    with pytest.raises(OctcError) as caught:
        check(folder, **policy)
    return caught.value.code, caught.value.message


def test_who_signed_is_told_and_trusted_by_the_public_key(folder: Path, mine: tuple[Path, Path], tmp_path: Path) -> None:
    assert check(folder) is None
    who = sign(folder, mine[0])
    assert check(folder) == who == check(folder, **{POLICY: "required", TRUSTED: str(mine[1])})
    _, other = write_key(tmp_path / "other", Ed25519PrivateKey.generate())
    code, message = refused(folder, **{TRUSTED: str(other)})
    assert (code, who in message, "not trusted" in message) == ("OCT-E507", True, True)
    assert check(folder, **{TRUSTED: f"{other}:{mine[1]}"}) == who


def test_any_change_after_signing_is_refused(folder: Path, mine: tuple[Path, Path]) -> None:
    sign(folder, mine[0])
    whole = json.loads((folder / SIGNATURE).read_text())
    for change in (
        {"signature": whole["signature"][::-1]},
        {"public_key": whole["signature"]},
        {"algorithm": "rsa"},
        {"manifest_sha256": "0" * 64},
        {"signature": None},
    ):
        (folder / SIGNATURE).write_text(json.dumps({**whole, **change}))
        assert refused(folder)[0] == "OCT-E507", change
    (folder / SIGNATURE).write_text(json.dumps(whole))
    (folder / "artifact.json").write_text('{"name": "other"}')
    assert refused(folder) == ("OCT-E507", "artifact.json was changed after it was signed")


def test_a_policy_that_cannot_be_followed_is_refused(folder: Path, mine: tuple[Path, Path], tmp_path: Path) -> None:
    assert refused(folder, **{POLICY: "required"})[0] == "OCT-E104"
    assert refused(folder, **{POLICY: "sometimes"})[0] == "OCT-E104"
    assert refused(folder, **{POLICY: "required", TRUSTED: str(mine[1])})[0] == "OCT-E507"  # not signed
    sign(folder, mine[0])
    _, wrong = write_key(tmp_path / "wrong", generate_private_key(65537, 2048))
    for key in (str(wrong), str(tmp_path / "nowhere.pub"), str(folder / "artifact.json")):
        assert refused(folder, **{TRUSTED: key})[0] == "OCT-E507"


def test_a_key_that_cannot_sign_is_refused(folder: Path, tmp_path: Path) -> None:
    locked, _ = write_key(tmp_path / "locked", Ed25519PrivateKey.generate(), BestAvailableEncryption(b"word"))
    rsa, _ = write_key(tmp_path / "rsa", generate_private_key(65537, 2048))
    for key, password in ((locked, None), (locked, "other"), (rsa, None), (tmp_path / "nowhere.pem", None)):
        with pytest.raises(OctcError) as caught:
            sign(folder, key, password)
        assert caught.value.code == "OCT-E507"
    assert not (folder / SIGNATURE).exists()
    assert check(folder) is None
    assert sign(folder, locked, "word") == check(folder)


def test_all_artifacts_are_signed_or_none(folder: Path, mine: tuple[Path, Path], tmp_path: Path) -> None:
    second = tmp_path / "onnx-fp32"
    second.mkdir()
    (second / "artifact.json").write_text("{}")
    both = [found(folder), found(second)]
    with pytest.raises(OctcError) as caught:
        verify_artifacts(both, {}, str(mine[1]))
    assert caught.value.code == "OCT-E507"
    with pytest.raises(OctcError, match="is not signed"):
        verify_artifacts(both, {})
    rows = sign_artifacts(both, mine[0])
    assert [(row.artifact, Path(row.file).is_file()) for row in rows] == [("onnx-int8", True), ("onnx-fp32", True)]
    assert [(row.artifact, row.key, row.files) for row in verify_artifacts(both, {}, str(mine[1]))] == [
        (row.artifact, row.key, 1) for row in rows
    ]
    (second / SIGNATURE).unlink()
    with pytest.raises(OctcError) as caught:
        sign_artifacts(both, mine[0])
    assert caught.value.code == "OCT-E106"
    assert not (second / SIGNATURE).exists()
    assert sign_artifacts(both, mine[0], force=True)[1].key == rows[1].key
