"""The history as a TensorBoard event file, written without TensorBoard. Tags are those of KD-OCT.

The records depend on the history alone (an epoch's wall time is its number), so a file is only ever made longer by what is
missing, and one that a kill cut off is completed by the next epoch.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octc.core.files import write_bytes
from octc.core.protobuf import FIXED32, FIXED64, bytes_field, number_field, varint

FILE = "events.out.tfevents.0.octc"
TAGS = {
    "train_soft": "Loss/Train_Soft",
    "train_hard": "Loss/Train_Hard",
    "val_loss": "Loss/Val",
    "train_acc": "Accuracy/Train",
    "val_acc": "Accuracy/Val",
    "lr": "Learning_Rate",
}
CASTAGNOLI = 0x82F63B78


def _table() -> list[int]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (CASTAGNOLI if value & 1 else 0)  # noqa: PLW2901
        rows.append(value)
    return rows


def crc32c(data: bytes) -> int:
    """Castagnoli's cyclic redundancy check."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(event: bytes) -> bytes:
    """A TFRecord: length, its check, the event, its check."""
    length = struct.pack("<Q", len(event))
    return length + _masked(length) + event + _masked(event)


def _event(wall_time: float, step: int, rest: bytes) -> bytes:
    return varint(1 << 3 | FIXED64) + struct.pack("<d", wall_time) + number_field(2, step) + rest


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """An epoch's row under KD-OCT's tags; a distilled training calls its loss Train_Total."""
    tags = {"train_loss": "Loss/Train_Total" if "train_soft" in row else "Loss/Train", **TAGS}
    return {tag: float(row[name]) for name, tag in tags.items() if name in row}


def events(history: Sequence[Mapping[str, Any]]) -> bytes:
    """The whole file: one event an epoch, step = epoch."""
    out = record(_event(0.0, 0, bytes_field(3, b"brain.Event:2")))
    for row in history:
        step = int(row["epoch"])
        values = [
            bytes_field(1, bytes_field(1, tag.encode()) + varint(2 << 3 | FIXED32) + struct.pack("<f", x))
            for tag, x in scalars(row).items()
        ]
        out += record(_event(float(step), step, bytes_field(5, b"".join(values))))
    return out


def write_events(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Make the event file say this history: append what is missing, or replace a file of another history."""
    data, path = events(history), folder / FILE
    there = path.read_bytes() if path.is_file() else b""
    if not there or not data.startswith(there):
        write_bytes(path, data)
    elif len(data) > len(there):
        with path.open("ab") as stream:
            stream.write(data[len(there) :])
