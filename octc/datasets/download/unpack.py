"""Unpacks untrusted archives: only regular files, only below the target folder, only the stated number of bytes."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from octc.core.errors import OctcError
from octc.datasets.base import Progress
from octc.imaging.kinds import ARCHIVE, foreign

FOLD, LEAST = 20, 64 << 20  # limits of the unpacked size: multiple of the archive's size, or bytes, whichever is larger
MOST_MEMBERS = 2_000_000
MOST_READ = 64 << 20  # bytes of a tar archive at once: more than blocks of members, and names that no archive has
# how a compressed tar archive begins -> what undoes it
PACKED: tuple[tuple[bytes, Callable[[Path, str], Any]], ...] = (
    (b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open), (b"\x5d\0\0", lzma.open),
)  # fmt: skip
BLOCK = 512  # bytes of a tar archive; one of zeros is its end
ENCRYPTED = 1  # bit of a zip member's flags
# errors of a file system about a name, not about its room
OF_NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
Member = tuple[str, int, Callable[[], IO[bytes]]]  # name, stated size, function that opens it


def unpack(
    archive: Path, into: Path, place: Callable[[str], str | None], progress: Progress | None = None
) -> int:  # fmt: skip
    """Unpack members of a zip or tar archive below `into`; returns their number.

    Args:
        place: name of a member -> path below `into`, or None to skip it. Every name is checked first.
        progress: callback with the bytes read from the archive (zip: bytes unpacked).

    Raises:
        OctcError: E219 a path outside the folder or that cannot be, a link or device, too many bytes or members; E217 the file
            is damaged, encrypted, of a kind that is not read, not an archive, or contains no wanted member; E904 not enough
            disk space.
    """
    limit = max(LEAST, FOLD * archive.stat().st_size)
    hint = "delete it and fetch it again, or take it from another place with --from"
    written, count, name = 0, 0, ""
    try:
        with _members(archive) as (members, total):
            _check_disk(into, total)
            if total > limit:
                raise _refused(archive, f"unpacks to {total} bytes, {limit} are allowed")
            for name, size, opened in members:
                target = place(name)
                if target is None:
                    continue
                path = into / checked(target, archive)
                if path.exists():
                    raise _refused(archive, f"holds {target} twice")
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, path.open("xb") as stream:
                    written = _copy(source, stream, written, limit, archive)
                if path.stat().st_size != size:
                    text = f"{name} has {path.stat().st_size} bytes, the archive says {size}"
                    raise OctcError("OCT-E217", text, hint=hint, place=str(archive))
                count += 1
                if progress is not None:
                    progress(min(written, max(total, 1)), max(total, 1))
    except DAMAGE as error:
        raise OctcError("OCT-E217", f"archive is damaged: {error}".rstrip("."), hint=hint, place=str(archive)) from error
    except OSError as error:
        raise _of_disk(error, archive, hint, name) from error
    if not count:
        raise OctcError("OCT-E217", "archive holds nothing of this data set", hint=hint, place=str(archive))
    return count


def checked(name: str, archive: Path) -> PurePosixPath:
    """The path of a member (OctcError E219: absolute, with "..", or invalid)."""
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)
    upwards = ".." in path.parts or ".." in windows.parts
    if not path.parts or path.is_absolute() or windows.drive or windows.root or upwards or "\0" in name:
        raise _refused(archive, f"holds the unsafe path {name!r}")
    return path


def _refused(archive: Path, why: str) -> OctcError:
    hint = "do not use this archive; take it from its publisher"
    return OctcError("OCT-E219", f"archive {why}", hint=hint, place=str(archive))


def _of_disk(error: OSError, archive: Path, hint: str, name: str) -> OctcError:
    """Convert an OSError during unpacking (of the member `name`); gzip raises OSError for damaged files too."""
    if name and error.errno in OF_NAMES:
        return _refused(archive, f"holds {name[:200]!r}, which cannot be written: {error.strerror}")
    if error.errno is None:
        return OctcError("OCT-E217", f"archive is damaged: {error}", hint=hint, place=str(archive))
    return OctcError(
        "OCT-E904", f"cannot unpack: {error.strerror}", hint="free disk space, or --data DIR elsewhere", place=str(archive)
    )


def _check_disk(into: Path, total: int) -> None:
    free = shutil.disk_usage(into).free
    if total > free:
        text = f"{total} bytes to unpack, {free} are free"
        raise OctcError("OCT-E904", text, hint="free disk space, or --data DIR elsewhere", place=str(into))


def _copy(source: IO[bytes], stream: IO[bytes], written: int, limit: int, archive: Path) -> int:
    while block := source.read(1 << 20):
        written += len(block)
        if written > limit:
            raise _refused(archive, f"unpacks to more than {limit} bytes")
        stream.write(block)
    return written


@contextmanager
def _members(archive: Path) -> Iterator[tuple[Iterator[Member], int]]:
    """The files of an archive after checking names and types, and their total stated size (0: only known while reading)."""
    with ExitStack() as stack:
        tar = _tar(archive, stack)  # asked first: a tar archive that holds a zip archive is one to `zipfile`, too
        if tar is not None:
            yield _of_tar(tar, archive), 0
        elif zipfile.is_zipfile(archive):
            opened = stack.enter_context(zipfile.ZipFile(archive))
            infos = opened.infolist()
            yield _of_zip(opened, infos, archive), sum(info.file_size for info in infos)
        else:
            raise _no_archive(archive)


def _no_archive(archive: Path) -> OctcError:
    text, hint = "neither a zip nor a tar archive", "download it in a browser and give it with --from FILE"
    with archive.open("rb") as stream:
        head = stream.read(BLOCK)
    name, what_to_do = foreign(head) or ("", "")
    if name == "a web page":
        text = "a web page, not an archive"
    elif name == "a zip archive":
        text = "the archive is damaged or cut off: a zip archive whose list of members is not there"
    elif what_to_do == ARCHIVE:
        text = f"it is {name}, and zip and tar archives (plain, gzip, bzip2, xz) are read"
        hint = "unpack it and pack it as zip or tar.gz, then --from FILE"
    return OctcError("OCT-E217", text, hint=hint, place=str(archive))


class _Bounded:
    """A stream of which nothing reads more than MOST_READ at once: tarfile takes a long name, or a header of PAX, as a whole,
    and of zeros ten megabytes unpack to ten gigabytes."""

    def __init__(self, stream: Any, archive: Path) -> None:
        self.stream, self.archive = stream, archive
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_READ:
            raise _refused(self.archive, f"has a header of more than {MOST_READ} bytes")
        data: bytes = self.stream.read(size)
        return data


def _tar(archive: Path, stack: ExitStack) -> tarfile.TarFile | None:
    """A tar archive, compressed or not; None where a file is none."""
    with archive.open("rb") as stream:
        head = stream.read(8)
    unpacked = next((opened for start, opened in PACKED if head.startswith(start)), None)
    stream = stack.enter_context(unpacked(archive, "rb") if unpacked is not None else archive.open("rb"))
    try:
        bounded: Any = _Bounded(stream, archive)
        return stack.enter_context(tarfile.open(fileobj=bounded, mode="r:"))
    except tarfile.ReadError:
        return None


def _of_zip(opened: zipfile.ZipFile, infos: list[zipfile.ZipInfo], archive: Path) -> Iterator[Member]:
    if len(infos) > MOST_MEMBERS:
        raise _refused(archive, f"holds {len(infos)} members")
    for info in infos:
        checked(info.filename, archive)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, f"holds a link or device: {info.filename!r}")
        if info.flag_bits & ENCRYPTED or not _known_method(info):
            why = "encrypted" if info.flag_bits & ENCRYPTED else f"compressed by method {info.compress_type}, which is not read"
            hint = "unpack it with the program that made it and pack it as a plain zip or tar.gz, then --from FILE"
            raise OctcError("OCT-E217", f"{info.filename[:200]!r} is {why}", hint=hint, place=str(archive))
    for info in infos:
        if not info.is_dir():
            yield info.filename, info.file_size, lambda info=info: opened.open(info)  # type: ignore[misc]


def _known_method(info: zipfile.ZipInfo) -> bool:
    return info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def _of_tar(tar: tarfile.TarFile, archive: Path) -> Iterator[Member]:
    """Members of a tar archive in one pass: a bad member aborts, and the caller removes the folder with what was written."""
    for number, info in enumerate(tar, 1):
        if number > MOST_MEMBERS:
            raise _refused(archive, f"holds more than {MOST_MEMBERS} members")
        checked(info.name, archive)
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise _refused(archive, f"holds a link or device: {info.name!r}")
        stream = tar.extractfile(info)
        if stream is not None:
            yield info.name, info.size, lambda stream=stream: stream  # type: ignore[misc]
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(BLOCK) != bytes(BLOCK):  # tarfile ends at anything that is no header
        raise tarfile.ReadError(f"no member, and no end, begins at byte {tar.offset}: it is cut off, or has a hole there")
