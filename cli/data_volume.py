"""`octc data volume`, `octc data convert` and `octc data synthetic-volumes`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError
from octc.core.options import OneOf, option

if TYPE_CHECKING:
    from octc.volumes.volume import RawShape, Volume

FORMATS = ("dicom", "png")
SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")


@dataclass(frozen=True)
class VolumeOptions:
    """Options for reading a volume file."""

    index: int | None = option(None, shown="Index of the volume if a file contains several (from 0)", within=(0, None))
    shape: str | None = option(None, shown="Dimensions of a file without a header", metavar="FRAMESxROWSxCOLUMNS")
    eye: str | None = option(None, shown="Laterality, if the file does not state it", metavar="R|L")
    allow_cut: bool = option(False, shown="Read the complete B-scans of a truncated file", names=("--allow-cut",))
    identity_key: Path | None = option(
        None, shown="File with the site's secret key, for hashing the patient id", metavar="FILE"
    )


def volume(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="DICOM, .vol, .fda ... (docs/volumes.md); -: standard input")],
    options: VolumeOptions,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Write a contact sheet that shows the order of the B-scans and the eye"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing contact sheet")] = False,
) -> int:
    """Show the content of a volume file, and where each fact comes from. The patient's identity is never shown."""
    from octc.core.files import replacing
    from octc.core.standard_input import piped
    from octc.volumes.sheet import contact_sheet

    if sheet is not None:
        _ending(sheet, (".png",), "--sheet", "a contact sheet is PNG")
    with piped([str(file)]) as ((place,), kept):
        found = opened(Path(place), options, kept)
        sheets = []
        for one in found if sheet is not None else ():
            assert sheet is not None
            path = sheet if len(found) == 1 else sheet.with_name(f"{sheet.stem}-{one.part}{sheet.suffix}")
            _free(path, file, force)
            with replacing(path) as part:
                contact_sheet(one).save(part, "PNG")
            sheets.append(str(path))
        session.report({"volumes": [one.to_json() for one in found], "sheets": sheets})
        for one in found:
            session.result(_table(one))
            for note in one.notes:
                session.say(f"  ! {note}")
        for name in sheets:
            session.result(name)
    return 0


def _ending(place: Path, endings: tuple[str, ...], name: str, what: str) -> None:
    """Refuse an output name whose extension contradicts its format (OctcError E104)."""
    if place.suffix.lower() not in endings:
        said = place.with_suffix(endings[0]) if endings[0] else place.with_suffix("")
        raise OctcError("OCT-E104", f"{name} {place}: {what}", hint=f"{name} {said}", place=name)


def convert(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Volume in any format that octc reads")],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="PLACE", help="Output: a .dcm file, or a folder for PNG")],
    options: VolumeOptions,
    to: Annotated[str, OneOf(FORMATS), typer.Option(help="dicom (OPT, 8 bits), or png (images with a manifest)")] = "dicom",
    force: Annotated[bool, typer.Option("--force", help="Replace existing files")] = False,
) -> int:
    """Write a volume as OPT DICOM, or as images with a manifest. Names, birth dates and ids of the patient are left out."""
    from octc.core.standard_input import piped
    from octc.volumes.writing import write_opt, write_pictures

    if to == "dicom":
        _ending(out, (".dcm", ".dicom", ""), "--output", "OPT DICOM is written (--to png writes pictures)")
    elif out.suffix.lower() in (".png", ".dcm", ".dicom", ".jpg", ".tif", ".tiff"):
        _ending(out, ("",), "--output", "pictures are written into a folder")
    written = []
    with piped([str(file)]) as ((source,), kept):
        found = opened(Path(source), options, kept)
        for one in found:
            place = out if len(found) == 1 else out.with_name(f"{out.stem}-{one.part}{out.suffix}")
            _free(place, file, force, folder=to == "png")
            if to == "dicom":
                write_opt(one, place)
            else:
                write_pictures(one, place, force=force)
            written.append(str(place))
    session.report({"source": str(file), "format": to, "written": written})
    session.result("\n".join(written))
    return 0


def synthetic_volumes(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder")],
    formats: Annotated[
        str, typer.Option("--format", metavar="NAME[,NAME]", help="File formats, used in turn")
    ] = "dicom,vol,fda",
    patients: Annotated[int, typer.Option(min=1, help="Patients per class (four classes)")] = 2,
    visits: Annotated[int, typer.Option(min=1, max=12, help="Visits per eye")] = 1,
    frames: Annotated[int, typer.Option(min=1, max=512, help="B-scans per volume")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; the same seed gives the same volumes")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files")] = False,
) -> int:
    """Generate synthetic volumes of both eyes in clinical file formats, with a table (volumes.csv). Not real patients."""
    from octc.datasets.synthetic.volumes import write_volumes

    names = [name.strip() for name in formats.split(",") if name.strip()]
    made = write_volumes(folder, names, patients=patients, visits=visits, frames=frames, seed=seed, force=force)
    people = len({drawn.patient for _, drawn in made})
    document = {"root": str(folder), "volumes": len(made), "patients": people, "formats": names}
    session.report({**document, "table": str(folder / "volumes.csv")})
    session.result(f"{len(made)} volumes of {people} synthetic patients in {folder}")
    session.say(f"next: octc data volume {folder / made[0][0]}")
    return 0


def opened(file: Path, options: VolumeOptions, kept: Path | None = None) -> list[Volume]:
    """Open the volumes of a file, or the one at `options.index`. `options.eye` is used only if the file states no laterality.

    kept: temporary file with the content of standard input; its volumes are named `-`.
    """
    from dataclasses import replace

    from octc.volumes.formats import read_volume, read_volumes
    from octc.volumes.identity import read_identity_key
    from octc.volumes.volume import Fact

    if options.eye not in (None, "R", "L"):
        raise OctcError("OCT-E104", f"--eye {options.eye}", hint="R or L", place="--eye")
    if (file / "volume.json").is_file():
        file = file / "volume.json"
    if not file.is_file():
        raise OctcError("OCT-E201", f"{file} is no file", hint="name a file; octc predict takes folders", place=str(file))
    key = None if options.identity_key is None else read_identity_key(options.identity_key)
    shape = _shape(options.shape, options.eye)
    if options.index is None:
        found = read_volumes(file, key=key, shape=shape, allow_cut=options.allow_cut)
    else:
        found = [read_volume(file, index=options.index, key=key, shape=shape, allow_cut=options.allow_cut)]
    named = [one for one in found if options.eye and one.laterality.value not in (None, options.eye)]
    if named:
        text = f"{named[0].name} names the {named[0].laterality.value} eye, --eye says {options.eye}"
        raise OctcError("OCT-E102", text, hint="leave --eye out", place="--eye")
    found = [replace(one, path=Path("-")) for one in found] if file == kept else found
    return [replace(one, laterality=Fact(options.eye, "the user")) if options.eye else one for one in found]


def _free(place: Path, source: Path, force: bool, *, folder: bool = False) -> None:
    """Refuse an output that is the input, that exists (without --force), or a folder instead of a file or vice versa."""
    if place.exists() and place.resolve() == source.resolve():
        raise OctcError("OCT-E102", f"{place} is the input itself", hint="name another output", place=str(place))
    if place.exists() and (not force or place.is_dir() != folder):
        hint = "--force, or another place" if place.is_dir() == folder else "name another place"
        raise OctcError("OCT-E106", f"{place} exists", hint=hint, place=str(place))
    if folder and place.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise OctcError("OCT-E106", f"{place} is the folder that this command runs in", hint="name another", place=str(place))


def _shape(text: str | None, eye: str | None) -> RawShape | None:
    from octc.volumes.volume import RawShape

    if text is None:
        return None
    found = SHAPE.fullmatch(text)
    if found is None:
        hint = "FRAMESxROWSxCOLUMNS, for example 128x1024x512"
        raise OctcError("OCT-E104", f"--shape {text}", hint=hint, place="--shape")
    frames, rows, columns = (int(number) for number in found.groups())
    return RawShape(frames, rows, columns, eye)


def _table(one: Volume) -> Rows:
    facts = [
        ("format", one.format + (" (experimental)" if one.experimental else ""), "content"),
        ("B-scans", f"{one.frames} of {one.rows} x {one.columns}", one.dtype),
        ("grey", one.intensity.name, ", ".join(f"{key} {value}" for key, value in one.intensity.numbers.items())),
    ]
    for name in ("laterality", "spacing", "pattern", "device", "acquired", "order", "complete"):
        fact = getattr(one, name)
        value = (
            " x ".join("?" if n is None else f"{n:.4g}" for n in fact.value) if name == "spacing" and fact.value else fact.value
        )
        facts.append((name, "unknown" if value is None else str(value), "" if value is None else fact.source))
    if one.patient:
        facts.append(("patient", one.patient, "HMAC-SHA256 of the id"))
    return Rows(("", "", "from"), facts, one.name)
