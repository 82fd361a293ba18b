"""Where things of a run are on this machine: the run of an artifact, and the images of a run. Every command asks here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.datasets.tree import is_folder
from octc.store.artifacts import Artifact
from octc.store.runs import RUN, Run

if TYPE_CHECKING:
    from octc.datasets.base import Sample


def run_of(folder: Path, artifact: Artifact, run_dir: Path) -> Run | None:
    """The run that an artifact came from, where it is on this machine: around its folder, or by its id in `run_dir`."""
    name = str(artifact.lineage.get("run") or "")
    around = folder.parent.parent if folder.parent.name == "artifacts" else folder.resolve().parent.parent
    places = (around, run_dir / name, Path(name))
    return next((Run(place) for place in places if name and _is_run(place, name)), None)


def _is_run(place: Path, name: str) -> bool:
    """Whether a folder is the run of this id; a folder that was renamed is told by its run.json."""
    if not (place / RUN).is_file():
        return False
    if place.resolve().name == name:
        return True
    try:
        return bool(read_json(place / RUN).get("id") == name)
    except (OSError, ValueError, AttributeError):
        return False


def image_root(run: Run, data: str | None, environ: Mapping[str, str]) -> Path:
    """The root of the images of a run, as every command that reads them looks for it.

    `data` (the option `--data`) is taken as it is. Without it: the root that the run recorded, OCTC_DATA (or `data.root` of the
    configuration), the data set's own place; the first of them that holds images of the run's split, else the first that is
    a folder: which images are missing there is then the error of who reads them.

    Raises:
        OctcError: E107 the run cannot be read, E230 no such folder is here, or OCTC_DATA is asked and is no folder.
    """
    from octc.datasets.registry import DATASETS, VARIABLE, find_root

    facts = run.read()
    name = str(facts.get("dataset"))
    if data:
        root = find_root(name, data, environ)
        return root if is_folder(root) else _beside(root, facts.get("data_root"), run)
    samples = _samples(run)
    recorded = facts.get("data_root")
    places = []
    for place, why in _places(recorded, name, environ):  # one after another: OCTC_DATA is not asked where the run knows
        if _holds(place, samples):
            return place
        places.append((place, why))
    if (found := next((place for place, _ in places if is_folder(place)), None)) is not None:
        return found
    looked = ", ".join(f"{place} ({why})" for place, why in places) or f"nowhere: set {VARIABLE}"
    text = f"the images of {run.id} ({name}) are not on this machine"
    hint = f"--data DIR, or export {VARIABLE}=DIR"
    spec = DATASETS.get(name)
    if spec is not None and spec.fetched_as:
        hint += f", or octc data fetch {shlex.quote(spec.fetched_as)}"
    raise OctcError("OCT-E230", text, hint=hint, place=str(places[0][0]) if places else None, why=f"looked at {looked}")


def _beside(table: Path, recorded: object, run: Run) -> Path:
    """Where the images of a table lie: where the run found them, if they are there, else beside it."""
    known = Path(recorded) if isinstance(recorded, str) else table.parent
    return known if _holds(known, _samples(run)) else table.parent


def _places(recorded: object, dataset: str, environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    from octc.datasets.registry import DATASETS, VARIABLE, named_root

    if isinstance(recorded, str) and recorded:
        yield Path(recorded), "where it was trained"
    if (named := named_root(environ)) is not None:
        yield named, VARIABLE
    spec = DATASETS.get(dataset)
    if spec is not None and spec.default_root:
        yield Path(spec.default_root), f"the place of {dataset}"


def _samples(run: Run) -> tuple[Sample, ...]:
    """The images of the run's split; none where it cannot be read (who needs it says so)."""
    from octc.datasets.split import read_split

    try:
        return tuple(sample for part in read_split(run.split).parts.values() for sample in part)
    except OctcError:
        return ()


def _holds(place: Path, samples: tuple[Sample, ...]) -> bool:
    """Whether any image of the split lies there; a folder that may not be read holds none."""
    try:
        return place.is_dir() and any((place / sample.file).exists() for sample in samples)
    except OSError:
        return False
