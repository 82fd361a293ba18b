"""`-` as a file name: standard input, copied to a temporary file while it is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from octc.core.errors import OctcError
from octc.core.scratch import scratch

NAME = "-"
MOST = 16 << 30  # bytes
BLOCK = 1 << 20


@contextmanager
def piped(words: Sequence[str], stream: IO[bytes] | None = None) -> Iterator[tuple[list[str], Path | None]]:
    """The words, with the path of a temporary file in place of `-`, and that path; None where no word is `-`.

    Files of volumes are read here and there, a pipe is not: so it is copied, once. The file is gone when the context ends.

    Args:
        stream: what is read; None: the standard input.

    Raises:
        OctcError: E104 `-` stands there twice, or nothing is piped in; E203 more than MOST bytes.
    """
    if NAME not in words:
        yield list(words), None
        return
    if stream is None and sys.stdin is None:
        raise OctcError("OCT-E104", "the standard input is closed", hint="octc predict ARTIFACT - < FILE", place=NAME)
    source = sys.stdin.buffer if stream is None else stream
    if list(words).count(NAME) > 1:
        raise OctcError("OCT-E104", "the standard input can be read once", hint="name `-` once", place=NAME)
    if source.isatty():
        raise OctcError("OCT-E104", "nothing is piped in", hint="octc predict ARTIFACT - < FILE", place=NAME)
    with scratch("input") as folder:
        path = folder / NAME
        size = 0
        with path.open("wb") as kept:
            while block := source.read(BLOCK):
                size += len(block)
                if size > MOST:
                    text = f"more than {MOST} bytes are piped in"
                    raise OctcError("OCT-E203", text, hint="store it, and name the file", place=NAME)
                kept.write(block)
        if size == 0:
            raise OctcError("OCT-E104", "the standard input is empty", hint="octc predict ARTIFACT - < FILE", place=NAME)
        yield [str(path) if word == NAME else word for word in words], path
