"""Walks through a folder of images, for all commands: files with an image extension, what is left out and why, and folders that
cannot be read. Decodes nothing."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from octc.core.errors import OctcError, combined, shorten
from octc.core.files import closed_folder
from octc.imaging.decode import SUFFIXES

HIDDEN, DEBRIS, THUMBNAIL = "hidden", "debris", "thumbnail"
LINK, LOST, SPECIAL, BARE = "link to a folder", "link that leads nowhere", "no regular file", "no ending"
AGAIN = "link to a folder that is read already"
COPY = "the same tree again"
# Names (in lower case) of files and folders that operating systems, file servers and programs create.
LITTER = frozenset({
    "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder", "icon\r",  # macOS
    "$recycle.bin", "recycler", "recycled", "recycle.bin", "system volume information", "desktop.ini", "ehthumbs.db",
    "ehthumbs_vista.db", "thumbs.db", "$av_asw", "msocache", "config.msi", "indexervolumeguid", "wpsettings.dat",  # Windows
    "lost+found", "nohup.out",  # Linux
    "@eadir", "@recycle", "@recycle bin", "@recently-snapshot", "@tmp", "@sharebin", "#recycle", "#snapshot", "~snapshot",
    "recycle bin", "recyclebin", "recycle",  # file servers
    "__pycache__", "_gsdata_", "lightroom previews.lrdata", "zbthumbnail.info", "picasa.ini", "pspbrwse.jbf",  # programs
})  # fmt: skip
LITTER_NAME = re.compile(
    r"(?:found\.\d{3}|\$recycle\.bin.*|.+@syno(?:eastream|resource)|~\$.*|.*\.(?:tmp|part|crdownload))", re.I | re.DOTALL
)
THUMB = re.compile(r"(?:.*[\W_])?(?:thumb|thumbs|thumbnail|thumbnails)(?:[\W_].*)?", re.I | re.DOTALL)
# Extensions of files that often accompany images and need no warning.
DOCUMENTS = frozenset({
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".rst", ".html", ".htm", ".pdf", ".doc", ".docx", ".odt", ".rtf",
    ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".py", ".ipynb", ".sh", ".bat",
    ".ps1", ".r", ".m", ".bib", ".tex", ".md5", ".sha1", ".sha256", ".sha512", ".url", ".lnk", ".css", ".js", ".db", ".sqlite",
})  # fmt: skip
PAPERS = frozenset(
    {"readme", "license", "licence", "copying", "notice", "authors", "changelog", "makefile", "sha256sums", "md5sums"}
)
ENDING = re.compile(r"\.[A-Za-z0-9_-]{1,12}")


@dataclass(frozen=True)
class Left:
    """A file or folder that was left out: path below the root (a folder's ends with "/"), and a short reason."""

    path: str
    why: str

    def __fspath__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Tree:
    """Result of walking through a folder. Paths are relative to `root`, with forward slashes; "" is the root itself.

    Attributes:
        images: files with an image extension, folder by folder: sorted by name, then those of the subfolders.
        inside: folder -> sorted names of its subfolders, without system folders and links.
        below: folder -> number of images in it and its subfolders.
        left: files and folders that were left out.
        links: symbolic links, without system files. Links to folders are followed on request only.
        closed: folders that could not be read completely, and the system's error.
        allowed: resolved folders that links may point into; the root is one of them.
    """

    root: Path
    images: tuple[str, ...]
    inside: Mapping[str, tuple[str, ...]]
    below: Mapping[str, int]
    left: tuple[Left, ...]
    links: tuple[str, ...]
    closed: tuple[tuple[str, str], ...]
    allowed: tuple[Path, ...] = ()

    def check_link(self, path: str) -> None:
        """Refuse a link that is broken or points outside the allowed folders (OctcError E205)."""
        whole = self.root / path
        target = _target(whole)
        if _leads_into(target, self.allowed) and (whole.exists() or whole.suffix.lower() not in SUFFIXES):
            return
        hint = "copy the file into the data set"
        if target is not None and whole.exists():
            place = target if target.is_dir() else target.parent
            hint += f", or allow its place: --follow-links {shlex.quote(str(place))}"
        raise OctcError("OCT-E205", "the link points outside the data set, or is broken", hint=hint, place=str(whole))

    def without(self, folder: str, why: str) -> Tree:
        """The same tree with one folder left out."""
        inside = {
            place: tuple(name for name in names if joined(place, name) != folder)
            for place, names in self.inside.items()
            if not is_under(place, folder)
        }
        images = tuple(path for path in self.images if not is_under(path, folder))
        left = (*(one for one in self.left if not is_under(one.path.rstrip("/"), folder)), Left(f"{folder}/", why))
        links = tuple(path for path in self.links if not is_under(path, folder))
        return replace(self, images=images, inside=inside, below=_below(images), left=left, links=links)

    def under(self, folder: str) -> Iterator[str]:
        """The images in a folder and its subfolders."""
        return (path for path in self.images if is_under(path, folder))

    def folders_under(self, folder: str) -> Iterator[str]:
        """All folders below a folder."""
        return (path for path in self.inside if path != folder and is_under(path, folder))

    def left_under(self, folder: str) -> list[Left]:
        """What was left out in a folder."""
        return [one for one in self.left if is_under(one.path, folder)]


def is_under(path: str, folder: str) -> bool:
    """Whether a path is in a folder, or the folder itself; both relative to the same root."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def joined(folder: str, name: str) -> str:
    """The path of a name in a folder, relative to the root."""
    return f"{folder}/{name}" if folder else name


def is_folder(path: Path) -> bool:
    """Whether a folder exists (OctcError E231: the system refuses the check, for example without permission)."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise closed_error(path, [(".", str(error.strerror))]) from error
    except ValueError:  # a null byte in the name
        return False


def has_file(path: Path) -> bool:
    """Whether a file exists and is accessible; unlike `Path.is_file` it never raises."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def has_folder(path: Path) -> bool:
    """Whether a folder exists and is accessible; unlike `Path.is_dir` it never raises."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def names_in(folder: Path) -> list[str]:
    """Sorted names in a folder, as far as it is readable; for recognising a layout before the folder is walked through."""
    return [entry.name for entry in _entries(folder)[0]]


def _target(path: Path) -> Path | None:
    """The resolved path; None for a loop of links."""
    try:
        return path.resolve(strict=False)
    except (OSError, RuntimeError):
        return None


def _leads_into(target: Path | None, allowed: Sequence[Path]) -> bool:
    return target is not None and any(target.is_relative_to(folder) for folder in allowed)


def scan_tree(root: Path, links: Sequence[Path] | None = None, starts: Sequence[str] = ("",)) -> Tree:
    """Walk through a folder and its subfolders. An unreadable folder is recorded in `closed`, and the walk continues.

    Args:
        links: folders besides the root that links to folders may point into; None: such links are not followed. Links are
            followed last, and no folder is read twice, so loops end.
        starts: folders relative to the root to walk through instead of all of it.
    """
    walk = _Walk(root, tuple(one for one in map(_target, (root, *(links or ()))) if one is not None), links is not None)
    waiting, linked = list(reversed(starts)), deque[str]()
    while waiting or linked:
        if waiting:
            folders, later = walk.enter(waiting.pop())
            waiting += reversed(folders)
            linked += later
        elif walk.follows(path := linked.popleft()):
            waiting.append(path)
    return walk.tree()


@dataclass
class _Walk:
    """State of a walk."""

    root: Path
    allowed: tuple[Path, ...]
    follow: bool
    images: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    inside: dict[str, list[str]] = field(default_factory=dict)
    seen: set[Path | None] = field(default_factory=set)

    def enter(self, folder: str) -> tuple[list[str], list[str]]:
        """Record the entries of a folder. Returns its subfolders, and the links to folders to follow later."""
        if self.follow and (real := _target(self.root / folder)) in self.seen:
            self.left.append(Left(f"{folder}/", AGAIN))
            return [], []
        if self.follow:
            self.seen.add(real)
        self.inside[folder] = []
        if folder:
            parent, _, name = folder.rpartition("/")
            self.inside.setdefault(parent, []).append(name)
        folders: list[str] = []
        later: list[str] = []
        entries, failure = _entries(self.root / folder if folder else self.root)
        if failure:
            self.closed.append((folder or ".", failure))
        for entry in entries:
            path = joined(folder, entry.name)
            kind, why = _sort(entry)
            if kind == "folder":
                folders.append(path)
            elif kind == "image":
                self.images.append(path)
            elif why == LINK and self.follow:
                later.append(path)
            else:
                self.left.append(Left(path + ("/" if kind == "left folder" else ""), why))
            if why not in (HIDDEN, DEBRIS, THUMBNAIL) and entry.is_symlink():
                self.links.append(path)
        return folders, later

    def follows(self, path: str) -> bool:
        """Whether to follow a link to a folder; otherwise it is recorded as left out."""
        target = _target(self.root / path)
        if _leads_into(target, self.allowed) and target not in self.seen:
            return True
        self.left.append(Left(f"{path}/", AGAIN if target in self.seen else LINK))
        return False

    def tree(self) -> Tree:
        """The finished tree."""
        below = _below(self.images)
        inside = {folder: tuple(sorted(names)) for folder, names in self.inside.items()}
        lists = tuple(self.images), inside, below, tuple(self.left), tuple(self.links), tuple(self.closed)
        return Tree(self.root, *lists, self.allowed)


def _below(images: Iterable[str]) -> Counter[str]:
    """Folder -> number of images in it and its subfolders."""
    below: Counter[str] = Counter()
    for image in images:
        folder = image
        while folder:
            folder = folder.rpartition("/")[0]
            below[folder] += 1
    return below


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], str]:
    """The readable entries of a folder sorted by name, and the error if the list is incomplete ("": complete)."""
    found: list[os.DirEntry[str]] = []
    why = ""
    try:
        with os.scandir(folder) as entries:
            found.extend(entries)
    except OSError as error:
        why = error.strerror or str(error)
    return sorted(found, key=lambda entry: entry.name), why


def scan_images(folder: Path) -> tuple[list[Path], str]:
    """The images in a folder without its subfolders, and the error if the list is incomplete ("": complete)."""
    entries, why = _entries(folder)
    return [folder / entry.name for entry in entries if _sort(entry)[0] == "image"], why


def scan_folder(folder: Path) -> tuple[list[str], list[Left], list[str], str]:
    """One folder: names of its images, other files, names of its subfolders, and the error if the list is incomplete."""
    entries, why = _entries(folder)
    images: list[str] = []
    others: list[Left] = []
    folders: list[str] = []
    for entry in entries:
        kind, reason = _sort(entry)
        if kind == "folder":
            folders.append(entry.name)
        elif kind == "image":
            images.append(entry.name)
        elif reason not in (HIDDEN, DEBRIS, THUMBNAIL):
            others.append(Left(entry.name, reason))
    return images, others, folders, why


def _sort(entry: os.DirEntry[str]) -> tuple[str, str]:
    """("folder" | "image", "") for entries that are used, ("left" | "left folder", reason) for others."""
    try:
        folder = entry.is_dir()
    except OSError:  # a loop of links, or a target without permission
        folder = False
    if why := litter(entry.name):
        return "left folder" if folder else "left", why
    if folder:
        return ("left folder", LINK) if entry.is_symlink() else ("folder", "")
    suffix = PurePosixPath(entry.name).suffix.lower()
    try:
        regular = entry.is_file() or stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # still an image by name; reading it will raise the error
        if suffix not in SUFFIXES and entry.is_symlink():
            return "left", LOST
        regular = True
    if suffix not in SUFFIXES:
        return "left", suffix if ENDING.fullmatch(suffix) else BARE
    return ("image", "") if regular else ("left", SPECIAL)


def litter(name: str) -> str:
    """The reason why a file or folder of this name does not belong to a data set ("": it may)."""
    low = name.casefold()
    if name.startswith("."):
        return HIDDEN
    if low in LITTER or LITTER_NAME.fullmatch(low):
        return DEBRIS
    return THUMBNAIL if THUMB.fullmatch(PurePosixPath(low).stem) else ""


def closed_error(root: Path, closed: Sequence[tuple[str, str]]) -> OctcError:
    """OctcError E231 for the folders below `root` that could not be read, one error each."""
    errors = [closed_folder(root if folder == "." else root / folder, why) for folder, why in closed]
    return combined(errors)


def open_tree(root: Path, links: Sequence[Path] | None = None, starts: Sequence[str] = ("",)) -> Tree:
    """`scan_tree` of a folder that must exist and be completely readable.

    Raises:
        OctcError: E230 there is no such folder; E231 lists all folders that cannot be read.
    """
    if not is_folder(root):
        raise OctcError("OCT-E230", f"no folder at {root}", hint="--data DIR", place=str(root))
    tree = scan_tree(root, links, starts)
    if tree.closed:
        raise closed_error(root, tree.closed)
    return tree


def scan_words(words: Sequence[str], also: Callable[[Path], bool] | None = None) -> tuple[list[Path], list[Left]]:
    """Expand the user's files and folders to the files to read, in order, and the files left out.

    A file that the user names is always included. An unreadable folder is listed among the files: reading it raises E231, so
    that it is counted and reported like an unreadable file.

    Args:
        also: predicate for files in folders without an image extension; True includes the file.

    Raises:
        OctcError: E201 a folder without images.
    """
    paths: list[Path] = []
    left: list[Left] = []
    for word in words:
        folder = Path(word)
        if not has_folder(folder):  # a file, or a folder without permission: reading it will raise the error
            paths.append(folder)
            continue
        tree = scan_tree(folder)
        more = [
            one
            for one in tree.left
            if also is not None and one.why not in (HIDDEN, DEBRIS, THUMBNAIL) and also(folder / one.path)
        ]
        left_here = [one for one in tree.left if one not in more]
        found = [*sorted([*tree.images, *(one.path for one in more)] if more else tree.images, key=_as_walked)]
        found += [name for name, _ in tree.closed]
        if not found:
            text = "no image in this folder" + (f"; left out: {words_left(tree.left)}" if tree.left else "")
            hint = "images end in .png, .jpg, .tif, .bmp or .webp; an artifact holds artifact.json"
            raise OctcError("OCT-E201", text, hint=hint, place=word)
        paths += [folder / name for name in found]
        left += [Left(str(folder / one.path) + ("/" if one.path.endswith("/") else ""), one.why) for one in left_here]
    return paths, left


def _as_walked(path: str) -> tuple[tuple[bool, str], ...]:
    """Sort key for the order of a walk: the files of a folder by name, then its subfolders."""
    parts = path.split("/")
    return tuple((place < len(parts) - 1, part) for place, part in enumerate(parts))


def may_be_image(left: Left) -> bool:
    """Whether something left out may be an image, unlike system files and documents."""
    if left.why == BARE:
        return left.path.rpartition("/")[2].casefold() not in PAPERS
    return left.why not in (HIDDEN, DEBRIS, THUMBNAIL, COPY, *DOCUMENTS)


def count_left(left: Iterable[Left]) -> dict[str, int]:
    """Reason -> count, most frequent first."""
    counts = Counter(one.why for one in left)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def words_left(left: Sequence[Left], most: int = 5) -> str:
    """What was left out, in one line: counts by reason, and the first names; "nothing" if it is empty."""
    if not left:
        return "nothing"
    counts = ", ".join(f"{count} {why}" for why, count in count_left(left).items())
    named = shorten([one.path.replace("\n", "\\n") for one in left], most)
    return f"{counts} ({named})"
