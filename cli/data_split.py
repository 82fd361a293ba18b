"""`octc data split | stats`: the split of a data set, and statistics of its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.cli.data import NAME, people_cell
from octc.core.data_options import DataOptions

if TYPE_CHECKING:
    from octc.datasets.split import Split


def split(
    session: Session,
    options: DataOptions,
    what: Annotated[str, typer.Argument(metavar="NAME|PATH", help=NAME)] = "ucsd",
    folds: Annotated[
        int | None, typer.Option(min=2, help="Number of folds by patient; each divides its rest 80/20 into train and val")
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(metavar="size|site", help="Leave one acquisition out per fold: by image size, or by site"),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="clean, or KD-OCT's splits with their leakage: as-released, as-released-teacher")
    ] = "clean",
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed of the split (0; as released: 43)")] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="Write split.json or fold-I-of-K.json to this folder")
    ] = None,
) -> int:
    """Show the split that a run with this seed trains on (by patient, where patients are known), or the folds of a
    cross-validation."""
    from octc.datasets.base import scan_json
    from octc.datasets.folds import never_left_out
    from octc.datasets.jobs import open_data, write_splits
    from octc.datasets.released_splits import make_splits

    opened = open_data(what, data=session.data, options=options, run_dir=session.run_dir, reporter=session, for_split=True)
    session.document["scan"] = scan_json(opened.samples)
    made = make_splits(opened.samples, opened.name, protocol, folds, seed, by=leave_out)
    written = [str(path) for path in write_splits(made, Path(out))] if out else []
    rows = [_row(one, part) for one in made for part in one.parts]
    several = len(made) > 1
    session.report(
        {**session.document, "dataset": opened.name, "root": str(opened.root), "seed": made[0].seed, "protocol": protocol,
         "splits": [_json(one) for one in made],
         "written": written, **_json(made[0], single=True)}
    )  # fmt: skip
    heads = (*(("fold",) if several else ()), "part", *made[0].classes, "images", "patients")
    if made[0].note:
        session.result(made[0].note)
    if whose := made[0].patient_ids.warning:
        session.warn("OCT-W212", whose)
    session.result(Rows(heads, [row if several else row[1:] for row in rows]))
    for one in made:
        _say(session, one, several)
    if leave_out is not None and (count := never_left_out(made)):
        session.say(
            f"{count} images are of acquisitions with too few patients: every fold trains on them, none leaves them out"
        )
    for path in written:
        session.say(f"written: {path}")
    return 0


def stats(
    session: Session,
    options: DataOptions,
    what: Annotated[str, typer.Argument(metavar="NAME|PATH", help=NAME)] = "ucsd",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split whose training images are read")] = 0,
) -> int:
    """Show images and patients per class, image sizes, and mean and std of the pixels (training images only)."""
    from octc.datasets.base import scan_json
    from octc.datasets.jobs import data_stats, open_data
    from octc.datasets.registry import spec_of

    opened = open_data(what, data=session.data, options=options, run_dir=session.run_dir, reporter=session, for_split=True)
    session.document["scan"] = scan_json(opened.samples)
    found = data_stats(opened, seed, options=options, reporter=session)
    note = spec_of(opened.name).note
    session.report({**session.document, "root": str(opened.root), "seed": seed, "dataset_note": note, **found.to_json()})
    rows = [
        (part, kind, str(count), people_cell(found.patients[part][kind]))
        for part, row in found.images.items()
        for kind, count in row.items()
    ]
    session.result(Rows(("part", "class", "images", "patients"), rows))
    spelt = ["  ".join(f"{value:.4f}" for value in values) for values in (found.mean, found.std)]
    weights = ", ".join(f"{kind} {weight:.4f}" for kind, weight in found.weights.items())
    sizes = ", ".join(f"{size} ({count})" for size, count in list(found.sizes.items())[:5])
    session.result(f"mean  {spelt[0]}\nstd   {spelt[1]}\nbalanced weights  {weights}\nsizes  {sizes}")
    session.say("mean and deviation are of the training part only, every image counting alike; values from 0 to 1")
    return 0


def _row(one: Split, part: str) -> tuple[str, ...]:
    counts = one.counts()[part]
    people = one.people()[part]
    return (
        str(one.fold[0] if one.fold else ""),
        part,
        *map(str, counts.values()),
        str(sum(counts.values())),
        people_cell(people),
    )


def _say(session: Session, one: Split, several: bool) -> None:
    """Print digest and leakage of one split."""
    from octc.datasets.split import CLEAN, leaks_of

    head = f"fold {one.fold[0]}  " if several and one.fold else ""
    if one.left_out:
        session.result(f"{head}leaves out {one.left_out}")
    session.result(f"{head}digest {one.digest}")
    leaks, known = leaks_of(one), one.patient_ids
    for leak in leaks:
        shared = [f"{len(leak[kind])} {kind}" for kind in ("patients", "eyes", "images") if leak[kind]]
        session.warn("OCT-W219", f"{head}{' and '.join(shared)} are in both {' and '.join(leak['parts'])}")
    if one.protocol == CLEAN and known.leakage:
        session.result(f"{head}leakage: no image is in two parts; {known.leakage}")
    elif one.protocol == CLEAN:
        session.result(f"{head}leakage: none (no patient and no image in two parts)")
    elif not leaks:
        session.warn("OCT-W219", f"{head}{one.note}")
    if one.dropped and one.protocol == CLEAN:
        session.say(f"{head}{one.dropped_words}")
    elif one.dropped:
        session.say(f"{head}{one.dropped} training images are used by nobody, as released")


def _json(one: Split, *, single: bool = False) -> dict[str, object]:
    from octc.datasets.split import leaks_of

    known = one.patient_ids
    leaks: list[dict[str, object]] = [
        {kind: found if kind == "parts" else len(found) for kind, found in leak.items()} for leak in leaks_of(one)
    ]
    if known.count is None:
        leaks = [{**leak, "patients": None} for leak in leaks]
    value: dict[str, object] = {
        "digest": one.digest, "dropped": one.dropped, "counts": one.counts(), "patients": one.people(),
        **known.to_json(), "leakage": one.leakage, "leaks": leaks,
    }  # fmt: skip
    return value if single else {"fold": one.fold, "left_out": one.left_out or None, "note": one.note, **value}
