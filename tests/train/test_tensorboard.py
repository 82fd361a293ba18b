"""Event files: read back by a reader written here from the format's description, and by TensorBoard where it is installed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octc.train.loop.tensorboard import FILE, crc32c, events, scalars, write_events

TEACHER = [
    {"epoch": k + 1, "train_loss": 2.0 / (k + 1), "train_acc": 0.2 * k, "val_loss": 2.2, "val_acc": 0.5, "lr": 1e-3 / (k + 1)}
    for k in range(3)
]
STUDENT = [{**row, "train_soft": 1.5, "train_hard": 0.25} for row in TEACHER]


def unmasked(value: int) -> int:
    rotated = (value - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def records(data: bytes) -> Iterator[bytes]:
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert unmasked(struct.unpack("<I", data[8:12])[0]) == crc32c(data[:8])
        event = data[12 : 12 + length]
        assert unmasked(struct.unpack("<I", data[12 + length : 16 + length])[0]) == crc32c(event)
        yield event
        data = data[16 + length :]


def varint(data: bytes) -> tuple[int, bytes]:
    value = shift = 0
    for place, byte in enumerate(data):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, data[place + 1 :]
    raise AssertionError("cut off")


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    while data:
        key, data = varint(data)
        kind = key & 7
        if kind == 0:
            value, data = varint(data)
            yield key >> 3, value
        elif kind == 2:
            length, data = varint(data)
            yield key >> 3, data[:length]
            data = data[length:]
        else:
            size, code = {1: (8, "<d"), 5: (4, "<f")}[kind]
            yield key >> 3, struct.unpack(code, data[:size])[0]
            data = data[size:]


def read(data: bytes) -> dict[tuple[int, str], float]:
    found = {}
    for event in records(data):
        parts = dict(fields(event))
        if 5 in parts:
            for _, value in fields(parts[5]):
                inner = dict(fields(value))
                found[parts[2], inner[1].decode()] = inner[2]
    return found


def test_check_value_of_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_f56_tags_and_values() -> None:
    found = read(events(TEACHER))
    tags = {"Loss/Train", "Loss/Val", "Accuracy/Train", "Accuracy/Val", "Learning_Rate"}
    assert set(found) == {(step, tag) for step in (1, 2, 3) for tag in tags}
    assert found[2, "Loss/Train"] == pytest.approx(1.0)
    assert found[3, "Learning_Rate"] == pytest.approx(1e-3 / 3)
    assert set(scalars(STUDENT[0])) == (tags - {"Loss/Train"}) | {"Loss/Train_Total", "Loss/Train_Soft", "Loss/Train_Hard"}
    assert dict(fields(next(records(events([])))))[3] == b"brain.Event:2"


def test_an_epoch_only_makes_the_file_longer(tmp_path: Path) -> None:
    write_events(tmp_path, TEACHER[:1])
    inode = (tmp_path / FILE).stat().st_ino
    write_events(tmp_path, TEACHER)
    assert (tmp_path / FILE).stat().st_ino == inode  # TensorBoard follows an open file
    assert (tmp_path / FILE).read_bytes() == events(TEACHER)


def test_a_file_that_a_kill_cut_off_is_completed(tmp_path: Path) -> None:
    whole = events(TEACHER[:2])
    for cut in (1, 40, len(whole) - 3):
        (tmp_path / FILE).write_bytes(whole[:cut])
        write_events(tmp_path, TEACHER)
        assert (tmp_path / FILE).read_bytes() == events(TEACHER)


def test_a_file_of_another_history_is_replaced(tmp_path: Path) -> None:
    write_events(tmp_path, STUDENT)
    write_events(tmp_path, TEACHER[:1])
    assert (tmp_path / FILE).read_bytes() == events(TEACHER[:1])


def test_tensorboard_itself_reads_it(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is no part of octc"
    )
    write_events(tmp_path, STUDENT)
    accumulator = reader.EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("Loss/Train_Soft")] == [1, 2, 3]
    assert [event.value for event in accumulator.Scalars("Loss/Val")] == pytest.approx([2.2] * 3)
