"""`octc data fetch`: print the sources, download, verify, unpack, and publish the data set atomically."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from octc.core.errors import OctcError
from octc.core.files import TEMPORARY, publishing, refuse_mount, sha256_file, write_json
from octc.core.locks import lock
from octc.core.offline import is_local
from octc.datasets.base import Progress
from octc.datasets.download.http import Say, fetch_file, read_answer, spell_bytes
from octc.datasets.download.sources import SIZES, RemoteFile, Source
from octc.datasets.download.unpack import unpack
from octc.datasets.layouts.octmnist import write_octmnist

RECEIPT = "source.json"  # file in the data set that records its sources
Ticking = Callable[[str], Progress]


@dataclass(frozen=True)
class Fetched:
    """A fetched data set: its source files with checksums, and the number of files written."""

    name: str
    root: str
    licence: str
    page: str
    files: tuple[dict[str, object], ...]
    written: int


@dataclass(frozen=True)
class FetchOptions:
    """Options of `fetch`.

    Attributes:
        place: another URL, or a local file; None: the URL of the source.
        sha256: expected checksum of the file at `place`. size: image size of OCTMNIST, pixels; None: 64.
        force: replace a data set that was fetched before. offline: connect to this machine only.
    """

    place: str | None = None
    sha256: str | None = None
    size: int | None = None
    force: bool = False
    offline: bool = False


def fetch(source: Source, root: Path, say: Say, ticking: Ticking, options: FetchOptions | None = None) -> Fetched:
    """Fetch a data set into `root`, which appears only when it is complete.

    Raises:
        OctcError: E106 `root` exists without `force`, or was not fetched by octc; E108 another process fetches it; E109 a disk
            is mounted there; E990 offline; and the errors of downloading and unpacking.
    """
    asked = options or FetchOptions()
    if root.name in ("", "..") or (root.is_symlink() and root.is_dir()):  # download to the disk that a link points to
        root = root.resolve()
    _check_root(source, root, asked.force)
    say(f"{source.title}\n  licence  {source.licence}")
    if asked.place is not None and "://" not in asked.place:
        return _placed(source, root, [_given(Path(asked.place), asked.sha256, say)], ticking)
    scratch = root.with_name(f"{TEMPORARY}fetch-{root.name}")
    files = _listed(source, say, asked)
    with _alone(scratch):
        archives = [fetch_file(file, scratch, source.page, say, ticking(file.name)) for file in files]
        try:
            done = _placed(source, root, archives, ticking)
        except OctcError as error:
            if error.code != "OCT-E904":  # keep the archive only if the disk is full; a damaged one is useless
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        shutil.rmtree(scratch, ignore_errors=True)
    return done


def _placed(source: Source, root: Path, archives: Sequence[Path], ticking: Ticking) -> Fetched:
    """Publish the data set atomically, with the record of its sources."""
    with publishing(root, force=root.is_dir()) as folder:  # `_check_root` allowed the replacement
        written = sum(_write(source, archive, folder, ticking) for archive in archives)
        files = tuple({"name": a.name, "bytes": a.stat().st_size, "sha256": sha256_file(a)} for a in archives)
        done = Fetched(source.name, str(root), source.licence, source.page, files, written)
        write_json(folder / RECEIPT, {key: value for key, value in asdict(done).items() if key != "root"})
    return done


@contextmanager
def _alone(scratch: Path) -> Iterator[None]:
    """Lock the download folder for this process (OctcError E108: another process uses it)."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        handle = os.open(scratch, os.O_RDONLY)
    except OSError as error:
        raise OctcError("OCT-E109", f"cannot be written: {error.strerror}", hint="--data DIR", place=str(scratch)) from error
    try:
        if lock(handle) is False:
            text = "another octc data fetch downloads to the same place"
            raise OctcError("OCT-E108", text, hint="wait for it, or --data DIR elsewhere", place=str(scratch))
        yield
    finally:
        os.close(handle)


def _check_root(source: Source, root: Path, force: bool) -> None:
    """Accept only an empty folder, or with `force` a data set that octc fetched before."""
    refuse_mount(root)
    if not os.path.lexists(root) or (root.is_dir() and not any(root.iterdir())):
        return
    if not (root / RECEIPT).is_file():
        hint = "--data DIR: a new folder"
        raise OctcError("OCT-E106", f"{root} exists and was not fetched by octc", hint=hint, place=str(root))
    if not force:
        hint = f"octc data check {source.name} looks at it; --force fetches it again, --data DIR puts it elsewhere"
        raise OctcError("OCT-E106", f"{root} exists", hint=hint, place=str(root))


def _given(archive: Path, sha256: str | None, say: Say) -> Path:
    """A local file, with its checksum verified if one is given."""
    if not archive.is_file():
        raise OctcError("OCT-E230", f"no file at {archive}", hint="--from FILE or --from URL", place="--from")
    found = sha256_file(archive)
    say(f"  file     {archive}\n  size     {spell_bytes(archive.stat().st_size)}\n  sha256   {found}")
    if sha256 is None:
        say("  the checksum was not verified (give the expected one with --sha256 CHECKSUM)")
    elif found != sha256.lower():
        text = f"{archive.name} does not have the given checksum; it has {found}"
        raise OctcError("OCT-E217", text, hint="fetch the file again", place=str(archive))
    return archive


def _listed(source: Source, say: Say, asked: FetchOptions) -> list[RemoteFile]:
    """The files to download; prints URL, size and checksum of all before the first download."""
    place, sha256, size, offline = asked.place, asked.sha256, asked.size or SIZES[0], asked.offline
    if place is not None:
        files = [RemoteFile(_name_of(place), place, None, None if sha256 is None else f"sha256:{sha256.lower()}")]
        _check_address(place, offline, source)
    elif source.index:
        _check_address(source.index, offline, source)
        say(f"  asking   {source.index}")
        files = source.files(read_answer(source.index, source.page), size)
    else:
        files = source.files(None, size)
    for file in files:
        _check_address(file.url, offline, source)
        stated = "stated when the download begins" if file.size is None else spell_bytes(file.size)
        algorithm, _, value = (file.digest or "").partition(":")
        say(f"  address  {file.url}\n  size     {stated}")
        say(f"  {algorithm:8} {value}" if value else "  checksum not stated; the file cannot be verified")
    return files


def _write(source: Source, archive: Path, folder: Path, ticking: Ticking) -> int:
    """Unpack the images of an archive into the data set; a separate table is copied."""
    if source.name == "octmnist":
        return write_octmnist(archive, folder, ticking("images"))
    if archive.suffix.lower() == ".csv":
        shutil.copyfile(archive, folder / archive.name)
        return 1
    return unpack(archive, folder, source.place, ticking("unpacking"))


def _check_address(url: str, offline: bool, source: Source) -> None:
    """Refuse URLs other than http and https, and with `offline` all but this machine."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OctcError(
            "OCT-E104", f"{url!r} is no address to download from", hint="--from https://... or FILE", place="--from"
        )
    if offline and not is_local(parts.hostname):
        hint = f"without --offline, or download it elsewhere from {source.page} and give it with --from FILE"
        raise OctcError(
            "OCT-E990", f"fetching {source.name} needs the network ({parts.hostname})", hint=hint, place="--offline"
        )


def _name_of(url: str) -> str:
    """A file name for a URL."""
    name = re.sub(r"[^\w.-]", "_", Path(unquote(urlsplit(url).path)).name).lstrip(".")
    return name or "download"
