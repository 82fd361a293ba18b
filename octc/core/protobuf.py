"""The wire format of protocol buffers: walked without building anything in memory, and written field by field.

ONNX files, their names of tensors and TensorBoard's events are read and written with it, on machines without their packages.

Format: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, "int | memoryview"]  # number, and a varint or the bytes of a string or message (fixed ones as bytes)

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIDTH = {FIXED64: 8, FIXED32: 4}


def fields(data: memoryview) -> Iterator[Field]:
    """Every field of a message, in its order. Raises ValueError where it is not well-formed."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise ValueError(f"field number {number}")
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            length, at = _varint(data, at)
        elif kind in WIDTH:
            length = WIDTH[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if length > end - at:
            raise ValueError(f"field {number} ends {length - (end - at)} bytes behind its message")
        yield number, data[at : at + length]
        at += length


def messages(data: memoryview, number: int) -> Iterator[memoryview]:
    """The sub-messages (or strings) of one field."""
    return (value for found, value in fields(data) if found == number and isinstance(value, memoryview))


def text(data: memoryview) -> str:
    """A string field (ValueError when it is not UTF-8)."""
    return bytes(data).decode()


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at
    raise ValueError("number cut off or too long")


def varint(value: int) -> bytes:
    """A whole number from 0 on, seven bits a byte, the lowest first.

    >>> varint(300)
    b'\\xac\\x02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """A field that holds a whole number from 0 on."""
    return varint(number << 3 | VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field that holds a string or a message."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value
