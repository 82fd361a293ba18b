"""`octc data fetch`: say what comes from where, download, check, unpack, and put the data set in place in one step."""

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

RECEIPT = "source.json"  # in the data set: what it was made from
Ticking = Callable[[str], Progress]


@dataclass(frozen=True)
class Fetched:
    """What was fetched: the files it came from with their sums, and how many files were written."""

    name: str
    root: str
    licence: str
    page: str
    files: tuple[dict[str, object], ...]
    written: int


@dataclass(frozen=True)
class FetchOptions:
    """How a data set is fetched.

    Attributes:
        place: another address, or a file that is already here; None: as the source states.
        sha256: what the file of `place` must have. size: of OCTMNIST, in pixels.
        force: what was fetched before is replaced. offline: only this machine may be asked.
    """

    place: str | None = None
    sha256: str | None = None
    size: int = SIZES[0]
    force: bool = False
    offline: bool = False


def fetch(source: Source, root: Path, say: Say, ticking: Ticking, options: FetchOptions | None = None) -> Fetched:
    """Fetch a data set into `root`, which appears only when it is complete.

    Raises:
        OctcError: E106 `root` exists without `force`, or holds what octc did not fetch; E108 another process fetches it;
            E109 a disk is mounted there;
            E990 offline; and what downloading and unpacking raise.
    """
    asked = options or FetchOptions()
    if root.name in ("", "..") or (root.is_symlink() and root.is_dir()):  # what is fetched goes to the disk of a link
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
            if error.code != "OCT-E904":  # a bad archive would be found bad again
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        shutil.rmtree(scratch, ignore_errors=True)
    return done


def _placed(source: Source, root: Path, archives: Sequence[Path], ticking: Ticking) -> Fetched:
    """The data set, in one step, with its receipt."""
    with publishing(root, force=root.is_dir()) as folder:  # what may be replaced was looked at before
        written = sum(_write(source, archive, folder, ticking) for archive in archives)
        files = tuple({"name": a.name, "bytes": a.stat().st_size, "sha256": sha256_file(a)} for a in archives)
        done = Fetched(source.name, str(root), source.licence, source.page, files, written)
        write_json(folder / RECEIPT, {key: value for key, value in asdict(done).items() if key != "root"})
    return done


@contextmanager
def _alone(scratch: Path) -> Iterator[None]:
    """The folder that downloads go to, for one process at a time (OctcError E108)."""
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
    """Only an empty folder is used, and only what was fetched before is replaced."""
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
    """A file that is already here, with its sum checked where one was given."""
    if not archive.is_file():
        raise OctcError("OCT-E230", f"no file at {archive}", hint="--from FILE or --from URL", place="--from")
    found = sha256_file(archive)
    say(f"  file     {archive}\n  size     {spell_bytes(archive.stat().st_size)}\n  sha256   {found}")
    if sha256 is None:
        say("  the checksum was not compared with anything (--sha256 CHECKSUM compares it with the one that you were given)")
    elif found != sha256.lower():
        text = f"{archive.name} does not have the checksum that was given: {found}"
        raise OctcError("OCT-E217", text, hint="fetch the file again", place=str(archive))
    return archive


def _listed(source: Source, say: Say, asked: FetchOptions) -> list[RemoteFile]:
    """The files to download; address, size and checksum of each are said before the first byte of any."""
    place, sha256, size, offline = asked.place, asked.sha256, asked.size, asked.offline
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
        say(f"  {algorithm:8} {value}" if value else "  checksum none was stated; the file cannot be checked")
    return files


def _write(source: Source, archive: Path, folder: Path, ticking: Ticking) -> int:
    """One archive's images into the data set; a table that came by itself is copied."""
    if source.name == "octmnist":
        return write_octmnist(archive, folder, ticking("images"))
    if archive.suffix.lower() == ".csv":
        shutil.copyfile(archive, folder / archive.name)
        return 1
    return unpack(archive, folder, source.place, ticking("unpacking"))


def _check_address(url: str, offline: bool, source: Source) -> None:
    """Only http and https, and offline only this machine."""
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
    """A file name for an address."""
    name = re.sub(r"[^\w.-]", "_", Path(unquote(urlsplit(url).path)).name).lstrip(".")
    return name or "download"
