"""Sources of data sets: web page, files with checksums, and which members of an archive to unpack."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from octc.core.errors import MissingExtra, OctcError

MENDELEY = "https://data.mendeley.com"
HEX = re.compile(r"^[0-9a-f]{64}$")
SIZES = (64, 128, 224)  # image sizes of OCTMNIST, pixels; octc rejects 28-pixel images (OCT-E208)


@dataclass(frozen=True)
class RemoteFile:
    """A file to download. digest: "sha256:..." or "md5:..." from the source, size: bytes; None: not stated."""

    name: str
    url: str
    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Source:
    """A data set that can be downloaded.

    Attributes:
        page: web page with the licence and a download link.
        index: URL that lists the files, or "".
        files: the files to download, from the response of `index`; raises OctcError E217 for an unexpected response.
        place: name of an archive member -> path in the data set, or None to skip it.
    """

    name: str
    title: str
    licence: str
    page: str
    index: str
    files: Callable[[Any, int], list[RemoteFile]]
    place: Callable[[str], str | None]


def mendeley_files(answer: Any, _size: int, wanted: str, page: str) -> list[RemoteFile]:
    """The files of a Mendeley data set with matching names.

    `answer` is [{"filename", "content_details": {"sha256_hash", "size", "download_url"}}, ...].
    """
    found = []
    try:
        for entry in answer:
            details = entry["content_details"]
            if re.search(wanted, entry["filename"], re.IGNORECASE):
                digest = str(details["sha256_hash"]).lower()
                if not HEX.match(digest):
                    raise ValueError(f"{entry['filename']} has no sha256")
                name = Path(str(entry["filename"])).name
                found.append(RemoteFile(name, str(details["download_url"]), int(details["size"]), f"sha256:{digest}"))
    except (KeyError, TypeError, ValueError) as error:
        hint = f"download it in a browser from {page} and give it with --from FILE"
        raise OctcError("OCT-E217", f"the source's list of files is not understood: {error!r}", hint=hint) from error
    if not found:
        hint = f"look at {page}, download it in a browser and give it with --from FILE"
        raise OctcError("OCT-E217", "the source's list holds no archive of the images", hint=hint)
    return found


def read_medmnist_info() -> dict[str, Any]:
    """Read the URLs, MD5 checksums and licence of OCTMNIST from the medmnist package.

    Only its info file is read: importing the package would import torch and pandas.
    """
    package = importlib.util.find_spec("medmnist")
    if package is None or not package.submodule_search_locations:
        raise MissingExtra("medmnist", "octmnist")
    path = Path(next(iter(package.submodule_search_locations))) / "info.py"
    spec = importlib.util.spec_from_file_location("octc_medmnist_info", path)
    if spec is None or spec.loader is None:
        raise MissingExtra("medmnist", "octmnist")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    info: dict[str, Any] = module.INFO["octmnist"]
    return info


def medmnist_files(_answer: Any, size: int) -> list[RemoteFile]:
    """OCTMNIST in one size, from the installed medmnist package."""
    info = read_medmnist_info()
    return [RemoteFile(f"octmnist_{size}.npz", info[f"url_{size}"], None, f"md5:{info[f'MD5_{size}']}")]


def place_ucsd(name: str) -> str | None:
    """{train,test}/CLASS/FILE of either release goes to CellData/OCT; chest X-rays, code and `val` are skipped."""
    found = re.search(r"(?:^|/)(train|test)/(CNV|DME|DRUSEN|NORMAL)/([^/]+)$", name)
    if found is None or re.search(r"chest|xray|__MACOSX|/\._", name, re.IGNORECASE):
        return None
    return f"CellData/OCT/{found[1]}/{found[2]}/{found[3]}"


def place_neh(name: str) -> str | None:
    """Images and the table are unpacked; macOS metadata files are skipped."""
    if re.search(r"__MACOSX|(?:^|/)\.", name) or not re.search(r"\.(jpe?g|tiff?|png|bmp|csv)$", name, re.IGNORECASE):
        return None
    return name


UCSD_PAGE, NEH_PAGE = f"{MENDELEY}/datasets/rscbjbr9sj/3", f"{MENDELEY}/datasets/8kt969dhx6/1"
SOURCES: dict[str, Source] = {
    "ucsd": Source(
        name="ucsd",
        title="UCSD: Large Dataset of Labeled OCT and Chest X-Ray Images, version 3 (Kermany et al. 2018), its OCT images",
        licence=f"CC BY 4.0 (read it at {UCSD_PAGE})",
        page=UCSD_PAGE,
        index=f"{MENDELEY}/public-api/datasets/rscbjbr9sj/files?folder_id=root&version=3",
        files=partial(mendeley_files, wanted=r"^ZhangLabData.*\.zip$", page=UCSD_PAGE),
        place=place_ucsd,
    ),
    "neh": Source(
        name="neh",
        title="NEH: Labeled Retinal OCT Dataset of Normal, Drusen, and CNV Cases, version 1 (Noor Eye Hospital 2021)",
        licence=f"as stated at {NEH_PAGE}: read it before you use the images",
        page=NEH_PAGE,
        index=f"{MENDELEY}/public-api/datasets/8kt969dhx6/files?folder_id=root&version=1",
        files=partial(mendeley_files, wanted=r"\.(zip|tar|tgz|tar\.gz|csv)$", page=NEH_PAGE),
        place=place_neh,
    ),
    "octmnist": Source(
        name="octmnist",
        title="OCTMNIST of MedMNIST v2 (Yang et al. 2023): UCSD, cropped and downsampled",
        licence="CC BY 4.0",
        page="https://medmnist.com",
        index="",
        files=medmnist_files,
        place=lambda name: name,
    ),
}


def source_of(name: str) -> Source:
    """A source by name (OctcError E104 lists the known names)."""
    if name not in SOURCES:
        hint = f"one of: {', '.join(SOURCES)}"
        raise OctcError("OCT-E104", f"{name!r} cannot be fetched", hint=hint, place="NAME")
    return SOURCES[name]
