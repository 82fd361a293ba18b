"""Download a published data set by its name."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Reporter, counting
from octc.datasets.download.fetch import Fetched, FetchOptions, fetch
from octc.datasets.download.sources import SIZES, source_of
from octc.datasets.registry import spec_of


def fetch_data(
    name: str,
    *,
    root: str | Path | None = None,
    options: FetchOptions | None = None,
    reporter: Reporter | None = None,
) -> Fetched:
    """Download a data set, verify its checksum and unpack it. Called again after an interruption, it goes on.

    Nothing else of octc downloads a data set; licence and source go to `reporter` first.

    Args:
        name: "ucsd", "neh" or "octmnist". root: the folder to make; None: the default folder of the data set.
        options: another place (URL or local file) with its checksum, the size of OCTMNIST, whether to replace.
        reporter: receives messages and progress; None: the log `octc`.

    Returns:
        The folder, the licence, the files of the source with their checksums, and how many files were written.

    Raises:
        OctcError: E104 an unknown name, checksum or size; E102 options that do not go together; and those of
            `octc.datasets.download.fetch.fetch`.
    """
    asked, told = options or FetchOptions(), reporter or LogReporter()
    source = source_of(name)
    if asked.sha256 is not None and asked.place is None:
        raise OctcError("OCT-E102", "--sha256 without --from", hint="leave it out: the source states its own checksum")
    if asked.sha256 is not None and (len(asked.sha256) != 64 or not set(asked.sha256.lower()) <= set("0123456789abcdef")):
        raise OctcError("OCT-E104", f"--sha256 {asked.sha256}", hint="64 hexadecimal digits", place="--sha256")
    if asked.size is not None and (name != "octmnist" or asked.place is not None):
        raise OctcError("OCT-E102", "--size is of octmnist as its source has it", hint="leave --size out")
    if asked.size is not None and asked.size not in SIZES:
        hint = f"one of: {', '.join(map(str, SIZES))} (octc takes no image below 32 pixels)"
        raise OctcError("OCT-E104", f"--size {asked.size}", hint=hint, place="--size")
    place = Path(root or str(spec_of(name).default_root))
    with ExitStack() as stack:
        return fetch(source, place, told.say, lambda label: stack.enter_context(counting(told, label)), asked)
