"""Downloads one file over HTTP: pooch stores it and verifies its checksum; an interrupted download is resumed.

The received part is in NAME.part, beside a file with its URL and version. After a changed version, a wrong checksum or a web
page instead of the file, nothing remains.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from octc.core.cells import digits_of
from octc.core.errors import OctcError
from octc.core.files import read_json, write_json
from octc.core.offline import is_local
from octc.core.optional import need
from octc.datasets.base import Progress
from octc.datasets.download.sources import RemoteFile

TIMEOUT = (10.0, 30.0)  # timeouts for connecting and between two chunks, seconds
PAUSES = (1.0, 4.0, 10.0)  # pauses before retries, seconds
BLOCK = 1 << 16
Say = Callable[[str], None]


def read_answer(url: str, page: str) -> Any:
    """Fetch JSON from a URL (OctcError E218: not reachable, E217: not JSON)."""
    with _session(url) as session, _named(url, page):
        response = session.get(url, timeout=TIMEOUT)
        _check_status(response.status_code, url, page)
        try:
            return response.json()
        except ValueError as error:
            text = f"{urlsplit(url).netloc} did not answer with a list of files"
            raise OctcError("OCT-E217", text, hint=_by_hand(page), place=url) from error


def fetch_file(file: RemoteFile, folder: Path, page: str, say: Say, progress: Progress | None = None) -> Path:
    """Download a file into `folder`, or resume its download. A complete file with the right checksum is used as it is.

    Raises:
        OctcError: E218 not reachable, or refused; E217 interrupted (the received part is kept), or another checksum or size
            (nothing is kept); E904 disk full; E901 pooch is missing.
    """
    pooch = need("pooch")
    pooch.get_logger().setLevel("ERROR")  # octc prints its own messages
    part = folder / f"{file.name}.part"

    def downloader(url: str, output: str, _pooch: Any) -> None:
        _download(RemoteFile(file.name, url, file.size, file.digest), part, page, say, progress)
        Path(output).unlink(missing_ok=True)
        try:
            os.link(part, output)  # keep the part until its checksum is verified
        except OSError:  # file system without hard links
            part.replace(output)

    try:
        found = Path(pooch.retrieve(file.url, file.digest, fname=file.name, path=folder, downloader=downloader))
    except ValueError as error:
        _forget(part)
        text = f"{file.name} does not have the checksum that its source states ({file.digest})"
        hint = f"the file was removed; try again, or {_by_hand(page)}"
        raise OctcError("OCT-E217", text, hint=hint, place=file.url) from error
    _forget(part)
    return found


def _download(file: RemoteFile, part: Path, page: str, say: Say, progress: Progress | None) -> None:
    """Fill `part`; resume after an interruption, as long as each attempt receives some bytes."""
    tries = 0
    while True:
        before = _size(part)
        try:
            return _pieces(file, part, page, say, progress)
        except OctcError as error:
            tries = 0 if _size(part) > before else tries + 1
            if not getattr(error, "passing", False) or tries > len(PAUSES):
                raise
            pause = PAUSES[max(tries - 1, 0)]
            say(f"{error.message}; again in {pause:g} s")
            time.sleep(pause)


def _pieces(file: RemoteFile, part: Path, page: str, say: Say, progress: Progress | None) -> None:
    have, headers, whole = _state(part, file.url)
    if whole:
        return
    with _session(file.url) as session, _named(file.url, page):
        response = session.get(file.url, stream=True, timeout=TIMEOUT, headers=headers)
        with response:
            _check_way(file.url, [r.url for r in (*response.history, response)], page)
            if response.status_code == 416:  # the local part does not match the remote file
                _forget(part)
                raise _passing(OctcError("OCT-E217", f"{file.name} changed at its source", hint="try again", place=file.url))
            _check_status(response.status_code, file.url, page)
            start = _start(response, have)
            total = _total(response, start)
            _check_content(response, file, total, part, page)
            if start:
                say(f"going on with {file.name} at {start} of {total or 'unknown'} bytes")
            elif have:
                say(f"{file.name} cannot be resumed and starts again")
            elif file.size is None:
                say(f"{file.name} has {'an unknown size' if total is None else spell_bytes(total)}")
            tags = {"etag": response.headers.get("ETag"), "modified": response.headers.get("Last-Modified")}
            if not start:
                _forget(part)  # must not be resumed as part of the new version
            _check_disk(part, (total or 0) - start)
            write_json(part.with_name(f"{part.name}.json"), {"url": file.url, "total": total, **tags})
            _write(response, part, start, total, progress)
    if total is not None and _size(part) != total:
        text = f"{file.name} was cut short: {_size(part)} of {total} bytes"
        raise _passing(OctcError("OCT-E217", text, hint="the same command goes on from there", place=file.url))


def _write(response: Any, part: Path, start: int, total: int | None, progress: Progress | None) -> None:
    done = start
    with part.open("r+b" if start else "wb") as stream:
        stream.seek(start)
        stream.truncate()
        try:
            for block in response.iter_content(BLOCK):
                stream.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, max(total or done, done))
        finally:
            stream.flush()
            os.fsync(stream.fileno())


def _state(part: Path, url: str) -> tuple[int, dict[str, str], bool]:
    """Number of bytes received, the headers to request the rest of the same version, and whether the file is complete."""
    headers = {"Accept-Encoding": "identity"}
    have = _size(part)
    try:
        version: dict[str, Any] = read_json(part.with_name(f"{part.name}.json")) if have else {}
    except (OSError, ValueError):
        version = {}
    etag = version.get("etag")
    same = etag if isinstance(etag, str) and not etag.startswith("W/") else version.get("modified")
    if version.get("url") != url or not isinstance(same, str):
        return 0, headers, False  # without a version the rest may not match
    return have, {**headers, "Range": f"bytes={have}-", "If-Range": same}, have == version.get("total")


def _start(response: Any, have: int) -> int:
    """Offset of the response: `have` for a matching partial response, 0 for the whole file."""
    if response.status_code != 206:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have:
        raise OctcError("OCT-E217", "the source sent another part than requested", hint="try again", place=response.url)
    return have


def _total(response: Any, start: int) -> int | None:
    length = digits_of(response.headers.get("Content-Length", ""))
    return None if length is None else start + length


def _check_content(response: Any, file: RemoteFile, total: int | None, part: Path, page: str) -> None:
    """Refuse a web page, or a file of another size than listed, before anything is written."""
    if response.headers.get("Content-Type", "").startswith("text/html"):
        _forget(part)
        raise OctcError("OCT-E217", f"the source sent a web page, not {file.name}", hint=_by_hand(page), place=file.url)
    if file.size is not None and total is not None and total != file.size:
        _forget(part)
        text = f"{file.name} has {total} bytes at its source, the list says {file.size}"
        raise OctcError("OCT-E217", text, hint=f"try again, or {_by_hand(page)}", place=file.url)


def _check_status(status: int, url: str, page: str) -> None:
    if status in (200, 206):
        return
    error = OctcError("OCT-E218", f"{urlsplit(url).netloc} answered {status}", hint=_by_hand(page), place=url)
    raise _passing(error) if status == 429 or status >= 500 else error


def _check_way(url: str, way: list[str], page: str) -> None:
    """Refuse a redirect from https to http."""
    if urlsplit(url).scheme == "https" and (open_ones := [step for step in way if urlsplit(step).scheme != "https"]):
        text = f"{urlsplit(url).netloc} leads to an address that is not secure"
        raise OctcError("OCT-E218", text, hint=_by_hand(page), place=open_ones[0])


def _check_disk(part: Path, more: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if more > free:
        text = f"{more} bytes to download, {free} are free"
        raise OctcError("OCT-E904", text, hint="free disk space, or --data DIR elsewhere", place=str(part.parent))


@contextmanager
def _session(url: str) -> Iterator[Any]:
    """A requests session with octc's user agent; proxy settings are ignored for this machine itself."""
    with need("requests").Session() as session:
        session.trust_env = not is_local(urlsplit(url).hostname)
        session.headers["User-Agent"] = f"octc/{importlib.metadata.version('octc')}"
        yield session


@contextmanager
def _named(url: str, page: str) -> Iterator[None]:
    """Convert exceptions of requests to OctcError with a one-line cause."""
    exceptions = need("requests").exceptions
    host = urlsplit(url).netloc
    try:
        yield
    except exceptions.Timeout as error:
        text = f"{host} did not answer in time"
        raise _passing(OctcError("OCT-E218", text, hint="try again: it goes on where it stopped", place=url)) from error
    except exceptions.ChunkedEncodingError as error:
        text = f"the connection to {host} broke off"
        raise _passing(OctcError("OCT-E217", text, hint="the same command goes on from there", place=url)) from error
    except exceptions.ConnectionError as error:
        text = f"{host} cannot be reached: {_cause(error)}"
        raise _passing(OctcError("OCT-E218", text, hint=f"check the network, or {_by_hand(page)}", place=url)) from error
    except exceptions.RequestException as error:
        raise OctcError("OCT-E218", f"the request to {host} failed: {_cause(error)}", hint=_by_hand(page), place=url) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = "the disk is full" if full else f"cannot be written: {error.strerror}"
        raise OctcError("OCT-E904", text, hint="free disk space, or --data DIR elsewhere", place=url) from error


def _cause(error: BaseException) -> str:
    """The innermost cause in one line."""
    seen = error
    while (inner := seen.__cause__ or seen.__context__) is not None and inner is not seen:
        seen = inner
    reason = getattr(seen, "strerror", None) or str(seen) or type(seen).__name__
    return " ".join(reason.split()).rstrip(".")


def _passing(error: OctcError) -> OctcError:
    """Mark an error as temporary, so that the download is retried."""
    error.passing = True  # type: ignore[attr-defined]
    return error


def _by_hand(page: str) -> str:
    return f"download it in a browser from {page} and give it with --from FILE"


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def spell_bytes(count: int) -> str:
    """A size in a readable unit, with the exact number of bytes."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{value:.2f} {unit} ({count:,} bytes)"
