"""Options of a verification and of an evaluation, for the library and the commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.options import check_choices, option
from octc.imaging.preprocess import VIEWS
from octc.stats.test_plan import ParityOptions

SPELLED = {"val": "select"}  # value of the option -> name in documents


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `octc.verify`.

    Attributes:
        options: margins, claim, level, resamples.
        set_name: "test", or "select" ("val") for the validation set.
        against: "fp32", "teacher", or None: FP32 first, then the teacher where it is here.
        tta: test-time augmentation for additional claims ("none", "hflip" or "5"); the main verdict is without.
        require_set: raise an error if the labelled images are not here.
        subgroups: table of image and group (`octc.bench.parity.subgroups.read_groups`). robustness: also test corrupted images.
        layers: record the output of every layer on the golden images, to compare machines.
        fleet: folder of documents from several machines to compare; nothing is run. With `on`: where its document is stored.
        on: user@host, run on that machine over ssh.
        emulate: processors under which the golden images are replayed. emulate_root: root file system with programs for another
            processor. sample: pictures or volumes to predict there too.
        reference: folder of the FP32 artifact to compare with; None: that of the same run.
        stated: names of the options that were given (None: all); the others are taken from the stored plan, if there is one.

    Raises:
        OctcError: E104 an unknown set, reference or number of views; E102 what belongs to `emulate`, without it.
    """

    options: ParityOptions = field(default_factory=ParityOptions)
    set_name: str = option(
        "test",
        names=("--set",),
        choices=("test", *SPELLED, *SPELLED.values()),
        shown="Set to test on: test, or val (the validation set of the run)",
    )
    against: str | None = option(
        None,
        choices=("fp32", "teacher"),
        shown="Reference: fp32 or teacher (fp32; if that claim is shown, also the teacher if it is here)",
    )
    tta: str = option(
        "none",
        choices=tuple(VIEWS),
        shown="Test-time augmentation as an additional row: none, hflip or 5 views; verdict and exit code are without",
    )
    threads: int | None = option(None, shown="Threads of the engine (physical cores)")
    require_set: bool = option(False, names=("--require-set",), shown="Fail if the labelled images are not on this machine")
    subgroups: Path | None = option(
        None, metavar="FILE", shown="Table of subgroups (CSV): path, sha256 or patient, and one column per grouping"
    )
    robustness: bool = option(
        False,
        names=("--robustness",),
        shown="Test also on corrupted images: noise, speckle, brightness, blur, JPEG, resizing",
    )
    layers: bool = option(
        False, names=("--layers",), shown="Record also the output of every layer on the golden images, for --fleet"
    )
    fleet: Path | None = option(
        None, metavar="DIR", shown="Compare the documents (verify.json, or --json output) of one artifact from many machines"
    )
    on: str | None = option(
        None, metavar="USER@HOST", shown="Verify on another machine over ssh; its document is stored in --fleet DIR"
    )
    emulate: str | None = option(
        None,
        metavar="NAMES",
        shown="Replay golden images under emulated processors: aarch64, neoverse-n1, x86-64-v3 ... (qemu-user)",
    )
    emulate_root: Path | None = option(None, metavar="DIR", shown="Root file system with Python and octc for --emulate aarch64")
    sample: Path | None = option(
        None, metavar="DIR", shown="Images or volumes that --emulate classifies too; labels are not read"
    )
    reference: Path | None = None
    stated: frozenset[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "set_name", SPELLED.get(self.set_name, self.set_name))
        check_choices(self)
        alone = [name for name in ("emulate_root", "sample") if getattr(self, name) is not None and self.emulate is None]
        if alone:
            name = f"--{alone[0].replace('_', '-')}"
            hint = f"octc verify ARTIFACT --emulate aarch64 {name} DIR"
            raise OctcError("OCT-E102", f"{name} without --emulate", hint=hint, place=name)

    @property
    def rows(self) -> dict[str, tuple[str, ...]]:
        """Names and views of the rows: the headline "none", and the one with test-time augmentation if requested."""
        return {name: VIEWS[name] for name in dict.fromkeys(("none", self.tta))}


@dataclass(frozen=True)
class EvalOptions:
    """Options of `octc.evaluate`.

    Attributes:
        split: "select" or "val" (the validation set), "test", or "official" (the official test part, for folds).
        tta: test-time augmentation: "none", "hflip" or "5"; average: "probabilities" or "logits" (as KD-OCT).
        maps: number of images to draw a Grad-CAM heat map for, wrong ones first.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    split: str = option(
        "select",
        choices=(*SPELLED, *SPELLED.values(), "test", "official"),
        shown="Set to evaluate on: val (or select), test, or official (for folds); reading test is logged",
    )
    tta: str = option("none", choices=tuple(VIEWS), shown="Test-time augmentation: views to average")
    average: str = option(
        "probabilities", choices=("probabilities", "logits"), shown="Quantity averaged over the views; logits: as KD-OCT"
    )
    maps: int = option(0, within=(0, 256), shown="Draw Grad-CAM heat maps for this many images, wrong ones first")
    device: str = option("auto", shown="Device: auto, cpu, cuda or cuda:N")

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", SPELLED.get(self.split, self.split))
