"""Checkpoints: whole, summed, of this network, and never a pickle (faults T07, T08, T09)."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.train.loop.checkpoint import META, WEIGHTS, Checkpoint, load_strictly, read_checkpoint, read_weights, write_checkpoint
from octc.train.networks.models import build_model

MADE = Checkpoint(
    role="teacher", model="test_resnet", model_kwargs={}, classes=("CNV", "NORMAL"), preprocess=Preprocess(64),
    recipe={"name": "smoke", "lr": 0.1, "deep": {"list": [1, 2.5, None]}}, dataset="folder", split_digest="a" * 64,
    data_digest="b" * 64, metrics={"val_accuracy": 1 / 3}, weights={"source": "random", "licence": "none"},
    quantisation={"observer": "max"}, parent={"sha256": "c" * 64},
)  # fmt: skip


def network(classes: int = 2, name: str = "test_resnet") -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(name, classes)


def refused(folder: Path) -> OctcError:
    with pytest.raises(OctcError) as caught:
        read_checkpoint(folder)
    return caught.value


def test_round_trip_keeps_every_field_and_every_bit(tmp_path: Path) -> None:
    state = {**network().state_dict(), "half": torch.randn(3).half(), "none": torch.zeros(0), "scalar": torch.tensor(3)}
    written = write_checkpoint(tmp_path, state, MADE)
    read, tensors = read_checkpoint(tmp_path)
    assert read == written == replace(MADE, sha256=written.sha256)
    assert list(tensors) == sorted(state) or set(tensors) == set(state)
    for name, tensor in state.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert sorted(p.name for p in tmp_path.iterdir()) == [META, WEIGHTS]


def test_tensors_that_share_memory_or_lie_otherwise_are_written_whole(tmp_path: Path) -> None:
    base = torch.randn(4, 6, 3, 3).to(memory_format=torch.channels_last)
    state = {"a": base, "b": base[1:3], "c": base.permute(1, 0, 2, 3)}
    write_checkpoint(tmp_path, state, MADE)
    _, tensors = read_checkpoint(tmp_path)
    assert all(torch.equal(tensors[name], state[name]) for name in state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    """Of a teacher, of what is exported or evaluated: nothing can be made of them."""
    write_checkpoint(tmp_path, {"a.weight": torch.ones(3), "b.weight": torch.tensor([1.0, value])}, MADE)
    error = refused(tmp_path)
    assert error.code == "OCT-E307"
    assert "b.weight" in error.message
    assert "a.weight" not in error.message


def test_missing_checkpoint_names_the_command_that_makes_one(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.code == "OCT-E107"
    assert "octc train" in error.hint


def test_t07_every_flipped_bit_of_the_weights_is_seen(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"w": torch.arange(5.0)}, MADE)
    data = (tmp_path / WEIGHTS).read_bytes()
    for place in range(0, len(data), 7):
        (tmp_path / WEIGHTS).write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        assert refused(tmp_path).code == "OCT-E501"
    (tmp_path / WEIGHTS).write_bytes(data[:-1])
    assert refused(tmp_path).code == "OCT-E501"
    (tmp_path / WEIGHTS).unlink()
    assert refused(tmp_path).code == "OCT-E310"


def test_t07_every_flipped_bit_of_the_json_is_seen(tmp_path: Path) -> None:
    """Numbers that still parse would be another preprocessing or class order."""
    write_checkpoint(tmp_path, {"w": torch.arange(5.0)}, MADE)
    text = (tmp_path / META).read_bytes()
    spared = {i for i, byte in enumerate(text) if byte in b" \n"}  # what JSON does not mean
    for place in set(range(len(text))) - spared:
        changed = text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]
        (tmp_path / META).write_bytes(changed)
        assert refused(tmp_path).code in ("OCT-E501", "OCT-E307", "OCT-E509"), changed[place - 20 : place + 20]


def test_json_of_an_octc_that_wrote_no_sum_of_it_is_still_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"w": torch.arange(5.0)}, MADE)
    value = json.loads((tmp_path / META).read_text())
    del value["json_sha256"]
    (tmp_path / META).write_text(json.dumps(value))
    assert read_checkpoint(tmp_path)[0].classes == ("CNV", "NORMAL")


@pytest.mark.parametrize(
    ("change", "named"),
    [({"schema_version": "2.0"}, "has format 2.0, this octc reads 1.0"), ({"schema_version": None}, "schema"),
     ({"invented": 1}, "does not know: invented"), ({"classes": None}, "not valid"),
     ({"classes": ["CNV", "CNV"]}, "stands twice"),
     ({"preprocess": {"size": "x"}}, "not valid"),
     ({"preprocess": []}, "not valid")],
)  # fmt: skip
def test_t08_newer_schema_and_other_fields_are_refused_by_name(tmp_path: Path, change: dict[str, object], named: str) -> None:
    write_checkpoint(tmp_path, {"w": torch.arange(5.0)}, MADE)
    value = {**json.loads((tmp_path / META).read_text()), **change}
    del value["json_sha256"]
    (tmp_path / META).write_text(json.dumps(value))
    error = refused(tmp_path)
    newer = change in ({"schema_version": "2.0"}, {"invented": 1})
    assert error.code == ("OCT-E509" if newer else "OCT-E307")
    assert error.exit_code == 3
    assert named in error.message


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"schema_version": "1.0"}', "\x00"])
def test_json_that_is_no_checkpoint_is_refused(tmp_path: Path, text: str) -> None:
    write_checkpoint(tmp_path, {"w": torch.arange(5.0)}, MADE)
    (tmp_path / META).write_text(text)
    assert refused(tmp_path).code == "OCT-E307"


def test_t08_another_architecture_is_refused_with_the_difference_of_keys() -> None:
    with pytest.raises(OctcError) as caught:
        load_strictly(network(), network(name="test_efficientnet").state_dict(), "FILE")
    assert caught.value.code == "OCT-E307"
    assert caught.value.exit_code == 3
    assert "missing keys (conv1.0.weight" in caught.value.message
    assert "unknown keys (conv_stem.weight" in caught.value.message


def test_t08_another_class_count_is_refused_with_the_difference_of_shapes() -> None:
    before = {name: tensor.clone() for name, tensor in network(2).state_dict().items()}
    model = network(2)
    with pytest.raises(OctcError) as caught:
        load_strictly(model, network(4).state_dict(), "FILE")
    assert "2 different shapes (fc.weight: file [4, " in caught.value.message
    assert "model [2, " in caught.value.message
    assert caught.value.place == "FILE"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())  # nothing was half loaded


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.path}",))


def bad_files(trap: Path) -> dict[str, bytes]:
    """Each kind of file in which torch.load finds a pickle."""
    kinds = {f"protocol-{p}.pth": pickle.dumps({"w": Malicious(trap)}, protocol=p) for p in range(pickle.HIGHEST_PROTOCOL + 1)}
    for name, zipped in (("zip.pth", True), ("legacy.pt", False)):
        stream = io.BytesIO()
        torch.save({"w": Malicious(trap)}, stream, _use_new_zipfile_serialization=zipped)
        kinds[name] = stream.getvalue()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        inner = kinds["protocol-2.pth"]
        entry = tarfile.TarInfo("storages")
        entry.size = len(inner)
        archive.addfile(entry, io.BytesIO(inner))
    kinds["tar.bin"] = stream.getvalue()
    return kinds


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_t09_no_pickle_is_executed_whatever_its_name(tmp_path: Path, suffix: str) -> None:
    trap = tmp_path / "executed"
    for name, data in bad_files(trap).items():
        path = tmp_path / (name + suffix)
        path.write_bytes(data)
        with pytest.raises(OctcError) as caught:
            read_weights(path)
        assert caught.value.code == "OCT-E308", name
        assert caught.value.exit_code == 3
        assert not trap.exists()
    pickle.loads(bad_files(trap)["protocol-4.pth"])
    assert trap.exists()  # the trap is real


def test_t09_a_pickle_with_the_right_sum_in_place_of_the_weights_is_refused(tmp_path: Path) -> None:
    from hashlib import sha256

    trap = tmp_path / "executed"
    data = bad_files(trap)["zip.pth"]
    write_checkpoint(tmp_path, {"w": torch.arange(5.0)}, MADE)
    value = json.loads((tmp_path / META).read_text())
    del value["json_sha256"]
    (tmp_path / META).write_text(json.dumps({**value, "sha256": sha256(data).hexdigest()}))
    (tmp_path / WEIGHTS).write_bytes(data)
    assert refused(tmp_path).code == "OCT-E308"
    assert not trap.exists()


@pytest.mark.parametrize(("length", "first"), [(19280, b"PK"), (640, b"\x80\x02"), (1152, b"\x80\x04"), (1408, b"\x80\x05")])
def test_safetensors_whose_header_length_spells_a_pickle_are_read(tmp_path: Path, length: int, first: bytes) -> None:
    data = save({"w": torch.arange(4.0)})
    size = struct.unpack("<Q", data[:8])[0]
    padded = struct.pack("<Q", length) + data[8 : 8 + size] + b" " * (length - size) + data[8 + size :]
    assert padded[:2] == first
    (tmp_path / WEIGHTS).write_bytes(padded)
    assert torch.equal(read_weights(tmp_path / WEIGHTS)["w"], torch.arange(4.0))


@pytest.mark.parametrize(
    "data", [b"", b"hello, this is a text\n", b"\x00" * 64, b"\xff" * 64, b"{}", b"\x89PNG\r\n\x1a\n" + b"0" * 99]
)
def test_files_that_are_neither_are_refused_too(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(OctcError) as caught:
        read_weights(tmp_path / "x.safetensors")
    assert caught.value.code in ("OCT-E307", "OCT-E308")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(OctcError) as caught:
            read_weights(path)
        assert caught.value.code == "OCT-E310"
