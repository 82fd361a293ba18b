"""The environment variables of octc besides configuration keys, and suggestions for misspelt ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

PREFIX = "OCTC_"
# variable -> what it sets; a key of the configuration is OCTC_<SECTION>__<KEY>
VARIABLES = {
    "OCTC_OFFLINE": "1: refuse every network connection",
    "OCTC_DATA": "root of the data set",
    "OCTC_ARTIFACT": "the artifact that commands take where none is named",
    "OCTC_CONFIG": "configuration file",
    "OCTC_COMPILED": "folder for compiled networks of OpenVINO; off: none is kept",
    "OCTC_TENSORRT_PYTHON": "the Python that has TensorRT",
    "OCTC_KEY_PASSWORD": "password of the key that signs",
    "OCTC_SERVE_TOKEN": "token that `octc serve` asks of its clients",
    "OCTC_STOW_TOKEN": "token for the archive that reports go to",
    "OCTC_BENCH_PARTIAL": "set by octc itself on a remote machine",
    "OCTC_EMULATED": "set by octc itself for an emulated processor",
}


def misspelt(environ: Mapping[str, str], known: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Names that look like a variable of octc and are none, each with the one that was probably meant (None: nothing is near).

    Letter case, one underscore in place of two, dashes of a letter or two, and the prefix itself (`OCT_DATA`) are seen through.
    A name with another beginning is reported only where something of octc is meant without doubt: it may be another program's.

    >>> list(misspelt({"OCTC_TRAIN_EPOCHS": "3", "OCT_DATA": "x"}, {"OCTC_TRAIN__EPOCHS", "OCTC_DATA"}))
    [('OCTC_TRAIN_EPOCHS', 'OCTC_TRAIN__EPOCHS'), ('OCT_DATA', 'OCTC_DATA')]
    """
    plain = {_plain(name): name for name in sorted(known)}
    for name in sorted(environ):
        if name in known or not name.upper().startswith("OCT") or name.upper().startswith("OCTAVE"):
            continue
        own = name.upper().startswith("OCTC")
        same = plain.get(_plain(name)) or plain.get(_plain(name.upper().replace("OCT_", PREFIX, 1)))
        near = get_close_matches(_plain(name), plain, n=1, cutoff=0.8) if own and same is None else []
        if own or same is not None:
            yield name, same or (plain[near[0]] if near else None)


def _plain(name: str) -> str:
    return name.upper().replace("_", "")
