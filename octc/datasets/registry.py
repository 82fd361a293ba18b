"""The table of data sets, and where to find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from octc.core.errors import OctcError
from octc.datasets.base import MODALITIES, PLAIN, UNLISTED, DatasetSpec, Finding, Progress, Reading, Sample, Samples
from octc.datasets.layouts.csv import is_table, scan_csv
from octc.datasets.layouts.folders import PHANTOM_MARK, scan_folder, scan_ucsd
from octc.datasets.layouts.mmc import CLASSES as MMC
from octc.datasets.layouts.mmc import find_mmc, scan_mmc, scan_mmc_eyes
from octc.datasets.layouts.multieye import CLASSES as MULTIEYE
from octc.datasets.layouts.multieye import find_multieye, scan_multieye
from octc.datasets.layouts.neh import CLASSES as NEH
from octc.datasets.layouts.neh import find_table, scan_neh, scan_neh_all
from octc.datasets.layouts.octmnist import MARK as OCTMNIST_MARK
from octc.datasets.layouts.topcon import CLASSES as TOPCON
from octc.datasets.layouts.topcon import find_topcon, scan_topcon
from octc.datasets.layouts.volumes import names_volumes, scan_volumes
from octc.datasets.parts import part_folders
from octc.datasets.pictures import read_picture
from octc.datasets.synthetic.paired import CLASSES as PAIRED
from octc.datasets.tree import count_left, has_file, has_folder, is_folder, may_be_image, open_tree
from octc.machine.cpu import reading_pool

UCSD = ("CNV", "DME", "DRUSEN", "NORMAL")
UCSD_LAYOUT = "CellData/OCT/{train,test}/CLASS/CLASS-PATIENT-INDEX.jpeg"
NEH_LAYOUT = "data_information.csv and NEH_UT_2021RetinalOCTDataset/CLASS/PATIENT/[OD|OS]/INDEX_LABEL.jpg"
NEH_SOURCE = "Sotoudeh-Paima, Hajizadeh, Soltanian-Zadeh 2021, Mendeley Data, doi:10.17632/8kt969dhx6.1"
MMC_LAYOUT = "ImageData/{cfp-clahe,oct-median3x3}-448x448/ and mmc-amd-split{A,AP}-{train,val,test}/ImageSets/{cfp,oct}.txt"
MMC_SOURCE = "Wang et al. 2022, MMC-AMD"
VARIABLE = "OCTC_DATA"  # `data.root` of a configuration file also sets it
DRAWN = {"phantom": "octc data synthetic", "paired-phantom": "octc data paired-synthetic"}

DATASETS: dict[str, DatasetSpec] = {
    "ucsd": DatasetSpec(
        name="ucsd",
        title="UCSD (Kermany) OCT B-scans: CNV, DME, drusen, normal",
        classes=UCSD,
        scan=scan_ucsd,
        default_root="./Dataset/UCSD",
        layout=UCSD_LAYOUT,
        licence="CC BY 4.0",
        source="Kermany, Zhang, Goldbaum 2018, Mendeley Data, doi:10.17632/rscbjbr9sj",
        note="a subset of the published data set: not comparable with published numbers",
        published={
            "train": {"CNV": 37206, "DME": 11349, "DRUSEN": 8617, "NORMAL": 51140},
            "test": {"CNV": 250, "DME": 250, "DRUSEN": 250, "NORMAL": 250},
        },
        fetched_as="ucsd",
    ),
    "neh": DatasetSpec(
        name="neh",
        title="Noor Eye Hospital B-scans whose label is the diagnosis of their patient: normal, drusen, CNV",
        classes=NEH,
        scan=scan_neh,
        default_root="./Dataset/NEH",
        layout=NEH_LAYOUT,
        licence="as its source states",
        source=NEH_SOURCE,
        note="B-scans whose label differs from the diagnosis are left out, which makes the task easier",
        published={"all": {"NORMAL": 5667, "DRUSEN": 3742, "CNV": 3240}},
        fetched_as="neh",
    ),
    "neh-all": DatasetSpec(
        name="neh-all",
        title="Noor Eye Hospital B-scans, all of them by their own label",
        classes=NEH,
        scan=scan_neh_all,
        default_root="./Dataset/NEH",
        layout=NEH_LAYOUT,
        licence="as its source states",
        source=NEH_SOURCE,
        fetched_as="neh",
    ),
    "octmnist": DatasetSpec(
        name="octmnist",
        title="OCTMNIST (MedMNIST): UCSD, cropped and downsampled",
        classes=UCSD,
        scan=scan_folder,
        default_root="./Dataset/OCTMNIST",
        layout="{train,val,test}/CLASS/NUMBER.png, which octc data fetch octmnist writes",
        licence="CC BY 4.0",
        source="Yang et al. 2023, MedMNIST v2, Zenodo, doi:10.5281/zenodo.10519652",
        note="no patient ids: images of one patient are in several parts, so metrics are too high",
        nameless=True,
        fetched_as="octmnist",
    ),
    "csv": DatasetSpec(
        name="csv",
        title="any images that a table lists",
        classes=None,
        scan=scan_csv,
        default_root=None,
        layout="labels.csv with the columns path and label (patient, and part), under any usual name",
        licence="yours",
        source="yours",
        table=True,
    ),
    "volumes": DatasetSpec(
        name="volumes",
        title="volumes of eyes (DICOM, .vol, .e2e, .fda ...) that a table lists",
        classes=None,
        scan=scan_volumes,
        default_root=None,
        layout="volumes.csv with the columns path, label (and patient, volume, eye, frame, part, shape)",
        licence="yours",
        source="yours",
        table=True,
    ),
    "folder": DatasetSpec(
        name="folder",
        title="any class tree",
        classes=None,
        scan=scan_folder,
        default_root=None,
        layout="CLASS/IMAGE or {train,val,test}/CLASS/IMAGE, parts in any usual spelling; CLASS-PATIENT-INDEX gives patients",
        licence="yours",
        source="yours",
    ),
    "phantom": DatasetSpec(
        name="phantom",
        title="synthetic B-scans (octc data synthetic)",
        classes=UCSD,
        scan=scan_ucsd,
        default_root="./Dataset/phantom",
        layout="as ucsd",
        licence="MIT",
        source="octc",
        note="synthetic images: says nothing about patients",
    ),
    "topcon-mm": DatasetSpec(
        name="topcon-mm",
        title="OCT and fundus images of the same eyes, eleven labels that do not exclude each other",
        classes=TOPCON,
        scan=scan_topcon,
        default_root="./Dataset/topcon-mm",
        layout="{train,val,test}/{cfp,oct}.txt and train/Images/{fundus,oct}_images/NAME.png",
        licence="as its source states",
        source="Wang et al. 2023 (FDDM), Guangdong Provincial Hospital of Integrated Traditional Chinese and Western Medicine",
        note="86 test eyes, some classes with 4 to 7 of them: consider the intervals",
        task="multilabel",
        modalities=MODALITIES,
    ),
    "mmc-amd": DatasetSpec(
        name="mmc-amd",
        title="OCT and fundus images: normal, dry AMD, PCV, wet AMD; released split by patient (AP)",
        classes=MMC,
        scan=scan_mmc,
        default_root="./Dataset/mmc-amd",
        layout=MMC_LAYOUT,
        licence="on request, for research",
        source=MMC_SOURCE,
        modalities=MODALITIES,
    ),
    "mmc-amd-a": DatasetSpec(
        name="mmc-amd-a",
        title="MMC-AMD with its released split by eye (A)",
        classes=MMC,
        scan=scan_mmc_eyes,
        default_root="./Dataset/mmc-amd",
        layout=MMC_LAYOUT,
        licence="on request, for research",
        source=MMC_SOURCE,
        note="split by eye: two eyes of one patient may be in train and test",
        modalities=MODALITIES,
    ),
    "multieye": DatasetSpec(
        name="multieye",
        title="MultiEYE: unpaired fundus and OCT images of nine classes",
        classes=MULTIEYE,
        scan=scan_multieye,
        default_root="./Dataset/multieye",
        layout="assemble{,_oct}/{train,dev,test}/large9cls.txt and their train/ImageData/",
        licence="as its source states",
        source="Wang et al. 2025, MultiEYE",
        note="no patient ids: leakage between its images cannot be excluded",
        nameless=True,
        modalities=MODALITIES,
    ),
    "paired-phantom": DatasetSpec(
        name="paired-phantom",
        title="synthetic OCT and fundus images of the same eyes, six labels (octc data paired-synthetic)",
        classes=PAIRED,
        scan=scan_topcon,
        default_root="./Dataset/paired-phantom",
        layout="as topcon-mm",
        licence="MIT",
        source="octc",
        note="synthetic images: says nothing about patients",
        task="multilabel",
        modalities=MODALITIES,
    ),
}


def spec_of(name: str) -> DatasetSpec:
    """The specification of a data set by name (OctcError E104 lists the known names)."""
    if name not in DATASETS:
        raise OctcError("OCT-E104", f"unknown data set {name!r}", hint=f"one of: {', '.join(DATASETS)}", place="--dataset")
    return DATASETS[name]


def guess_layout(root: Path) -> str:
    """The data set that a folder looks like: by octc's marker files, else by its tables and folders, else "folder"."""
    signs = {
        "paired-phantom": has_file(root / PHANTOM_MARK) and find_topcon(root),
        "phantom": has_file(root / PHANTOM_MARK),
        "octmnist": has_file(root / OCTMNIST_MARK),
        "ucsd": has_folder(root / "CellData" / "OCT") or "train" in part_folders(root / "OCT"),
        "neh": find_table(root) is not None,
        "topcon-mm": find_topcon(root),
        "mmc-amd": find_mmc(root),
        "multieye": find_multieye(root),
        "volumes": names_volumes(root),
        "csv": is_table(root),
    }
    return next((name for name, here in signs.items() if here), "folder")


def named_root(environ: Mapping[str, str]) -> Path | None:
    """The folder in OCTC_DATA; None if it is not set.

    Raises:
        OctcError: E230 it is not a folder. The default is not used instead, since it would be a different data set.
    """
    named = environ.get(VARIABLE)
    if not named:
        return None
    if not is_folder(Path(named)):
        text = f"{VARIABLE} names a folder that is not here: {named}"
        hint = f"unset {VARIABLE}, or export {VARIABLE}=DIR (data.root of the configuration sets it too)"
        raise OctcError("OCT-E230", text, hint=hint, place=named)
    return Path(named)


def find_root(name: str, data: str | None, environ: Mapping[str, str]) -> Path:
    """The root of a data set: `--data`, else OCTC_DATA, else its default folder (OctcError E230: it does not exist).

    An invalid OCTC_DATA is an error for synthetic data sets too, although they have their own default folders.
    """
    spec = spec_of(name)
    default = spec.default_root
    named = None if data else named_root(environ)
    chosen = data or (None if name in DRAWN else named) or default
    if chosen is None:
        raise OctcError("OCT-E230", f"data set {name} has no default folder", hint="--data DIR, or set OCTC_DATA")
    root = Path(chosen)
    if not (spec.table and has_file(root)) and not is_folder(root):
        get = f"{DRAWN[name]} draws it" if name in DRAWN else "give --data DIR"
        if spec.fetched_as:
            get = f"octc data fetch {spec.fetched_as}, or --data DIR"
        raise OctcError("OCT-E230", f"data set {name} not found at {root}", hint=get, place=str(root))
    return root


def scan_dataset(
    name: str,
    root: Path,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    skip_bad: bool = False,
    reading: Reading = PLAIN,
) -> Samples:
    """Scan a data set by name. With `skip_bad`, every image is decoded, and unreadable ones are left out and listed.

    Raises:
        OctcError: the errors of the layout (E205, E206, E207, E230, E231); E206 `skip_bad` leaves a class without images.
    """
    spec = spec_of(name)
    samples = _with_left_out(spec.scan(root, classes or spec.classes, progress, reading))
    return without_bad(samples, progress) if skip_bad else samples


def _with_left_out(samples: Samples) -> Samples:
    """Add the list of files that were not read, with a warning if they may be images."""
    tree = samples.tree or open_tree(samples.root)
    unread = (*samples.unread, *tree.left)
    missed = [one for one in unread if one.why != UNLISTED and may_be_image(one)]
    if not missed:
        return replace(samples, unread=unread)
    text = f"{len(missed)} left out that may hold images: {', '.join(f'{n} {why}' for why, n in count_left(missed).items())}"
    hint = "convert them to PNG, JPEG, TIFF, BMP or WebP and put them into a class folder, or move them out of the data set"
    note = Finding("OCT-W220", text, tuple(one.path for one in missed), hint)
    return replace(samples, unread=unread, notes=(*samples.notes, note))


def without_bad(samples: Samples, progress: Progress | None = None) -> Samples:
    """Keep the samples that can be decoded; the others are listed in `skipped`."""
    good: list[Sample] = []
    bad: list[tuple[str, str]] = []
    with reading_pool() as pool:
        found = pool.map(partial(_why_bad, samples.root), samples.items)
        for done, (sample, why) in enumerate(zip(samples.items, found, strict=True), 1):
            if why is None:
                good.append(sample)
            else:
                bad.append((sample.path, why))
            if progress is not None:
                progress(done, len(samples.items))
    if empty := [name for k, name in enumerate(samples.classes) if not any(s.has(k) for s in good)]:
        text = f"no readable image is left of {', '.join(empty)}"
        raise OctcError("OCT-E206", text, hint="fetch the files again", place=str(samples.root))
    return replace(samples, items=tuple(good), skipped=tuple(bad))


def _why_bad(root: Path, sample: Sample) -> str | None:
    try:
        read_picture(root, sample)
    except OctcError as error:
        return f"{error.code}: {error.message}"
    return None
