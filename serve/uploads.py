"""Uploaded files of a request in their own folder, in memory if possible, removed after the request."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.core.scratch import scratch

MEMORY = Path("/dev/shm")
FILES = 256  # maximum number of files per upload
LONG = 180  # maximum length of a name, bytes
HEADERS = 8192  # maximum size of a part's headers, bytes
HINT = "curl -F file=@eye.png, or --data-binary @eye.png -H 'Content-Type: application/octet-stream'"


@contextmanager
def upload_root(named: str | None) -> Iterator[str]:
    """A folder for the uploads of this server, removed at its end. Leftovers of killed servers are removed first, because they
    are patient images and may occupy memory.

    Args:
        named: parent folder; None: in memory if possible, else the system's temporary folder.

    Raises:
        OctcError: E109 the named folder cannot be written.
    """
    place = named if named is not None else str(MEMORY) if MEMORY.is_dir() else None
    with ExitStack() as leaving:
        try:
            folder = leaving.enter_context(scratch("uploads", place))
        except OSError as error:
            if named is not None:
                text = f"{named} cannot be written: {error.strerror}"
                raise OctcError("OCT-E109", text, hint="--uploads DIR that can be written", place="--uploads") from error
            folder = leaving.enter_context(scratch("uploads"))
        yield str(folder)


class Upload:
    """The folder with the files of one request; a context manager that removes them at its end."""

    def __init__(self, root: str) -> None:
        Path(root).mkdir(mode=0o700, exist_ok=True)  # a cleaner of temporary files may have removed it
        self.folder = Path(tempfile.mkdtemp(dir=root))
        self.files: list[Path] = []

    def open(self, name: str) -> BinaryIO:
        """Create a file; only the last component of the client's name is used, without special characters."""
        if len(self.files) >= FILES:
            raise OctcError("OCT-E911", f"more than {FILES} files in one upload", hint="send fewer at once")
        path = self.folder / plain_name(name)
        if path in self.files:
            raise OctcError("OCT-E104", "two files with the same name in an upload", hint="give each file its own name")
        self.files.append(path)
        return path.open("xb")

    def hide(self, value: Any) -> Any:
        """Remove the folder from all paths in a JSON value, which leaves the client's file names."""
        if isinstance(value, str):
            return value.replace(f"{self.folder}/", "")
        if isinstance(value, list):
            return [self.hide(one) for one in value]
        return {key: self.hide(one) for key, one in value.items()} if isinstance(value, dict) else value

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def plain_name(name: str) -> str:
    """The last component of a name in printable characters, not hidden, and shortened if necessary."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(sign if sign.isprintable() and sign not in "\ufffd" else "_" for sign in last).lstrip(". ")
    while len(kept.encode("utf-8", "replace")) > LONG:
        kept = kept[1:]  # keeps the extension
    return kept or "upload"


async def receive(upload: Upload, chunks: AsyncIterator[bytes], content_type: str, name: str) -> None:
    """Write a request body into an upload: the files of a multipart form, or the body itself under `name`.

    Raises:
        OctcError: E913 JSON instead of a file; E104 a damaged form, or one without files; and the errors of `chunks`.
    """
    kind, options = need("python_multipart").multipart.parse_options_header(content_type)
    if kind == b"application/json":
        text = "JSON contains no image file (base64 is not supported)"
        raise OctcError("OCT-E913", text, hint=f"{HINT}; prepared tensors go to POST /v2/models/MODEL/infer")
    if kind != b"multipart/form-data":
        with upload.open(name) as file:
            async for chunk in chunks:
                file.write(chunk)
            if not file.tell():
                raise OctcError("OCT-E104", "the body is empty", hint=HINT)
        return
    form = _Form(upload, options.get(b"boundary", b""))
    try:
        async for chunk in chunks:
            form.write(chunk)
        form.end()
    finally:
        form.close()


class _Form:
    """Parser of a multipart form that writes its files as they arrive."""

    def __init__(self, upload: Upload, boundary: bytes) -> None:
        self._upload = upload
        self._library = need("python_multipart").multipart
        self._file: BinaryIO | None = None
        self._field = self._value = b""
        self._disposition = b""
        self._read = 0
        self._whole = False
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "part_end", "end")
        callbacks: dict[str, Callable[..., None]] = {f"on_{name}": getattr(self, f"_{name}") for name in names}
        if not boundary:
            raise OctcError("OCT-E104", "a form without a boundary", hint=HINT)
        try:
            self._parser = self._library.MultipartParser(boundary, callbacks)
        except self._library.FormParserError as error:
            raise _damaged(error) from error

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except self._library.FormParserError as error:
            raise _damaged(error) from error

    def end(self) -> None:
        if not self._whole:
            raise OctcError("OCT-E104", "the form is incomplete", hint=HINT)
        if not self._upload.files:
            raise OctcError("OCT-E104", "no file in the form", hint=HINT)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _part_begin(self) -> None:
        self._disposition, self._field, self._value, self._read = b"", b"", b"", 0

    def _header_field(self, data: bytes, start: int, stop: int) -> None:
        self._field += self._counted(data[start:stop])

    def _header_value(self, data: bytes, start: int, stop: int) -> None:
        self._value += self._counted(data[start:stop])

    def _counted(self, data: bytes) -> bytes:
        self._read += len(data)
        if self._read > HEADERS:
            raise OctcError("OCT-E911", f"headers of a part of more than {HEADERS} bytes", hint=HINT)
        return data

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = self._library.parse_options_header(self._disposition)
        name = options.get(b"filename")
        if name is None:
            raise OctcError(
                "OCT-E104", "a field of the form is not a file", hint="give options in the query: /v1/predict?tta=hflip"
            )
        self._file = self._upload.open(name.decode("utf-8", "replace"))

    def _part_data(self, data: bytes, start: int, stop: int) -> None:
        assert self._file is not None
        self._file.write(data[start:stop])

    def _part_end(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None

    def _end(self) -> None:
        self._whole = True


def _damaged(error: Exception) -> OctcError:
    return OctcError("OCT-E104", f"the form is damaged: {str(error)[:200]}", hint=HINT)
