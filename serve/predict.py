"""Predictions for uploaded files, with the same output as `octc predict --json`: preprocessing, B-scans, eyes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.imaging.decode import Decoded
from octc.imaging.preprocess import VIEWS
from octc.runtimes.answers import Tally, predictions
from octc.runtimes.inputs import scan_inputs
from octc.runtimes.maps import HeatMap, MapOptions, map_of
from octc.runtimes.predict import Input, Record, Scan, classify, decoded
from octc.runtimes.room import BATCH, Batch
from octc.runtimes.scans import Reading, aggregation_of, opened, with_eyes
from octc.serve.models import Opened
from octc.serve.site import Site
from octc.stats.aggregation import PLAIN

TOO_LARGE = "OCT-E911"


@dataclass(frozen=True)
class Options:
    """Options as for `octc predict`: tta (a key of VIEWS), aggregation of an eye's B-scans, allow_cut.

    deadline: on the clock time.monotonic; None: no deadline.
    """

    tta: str = "none"
    aggregation: str | None = None
    allow_cut: bool = False
    deadline: float | None = None

    def check(self) -> None:
        """Check the values (OctcError E104)."""
        if self.tta not in VIEWS:
            raise OctcError("OCT-E104", f"tta {self.tta[:50]!r}", hint=f"one of: {', '.join(VIEWS)}", place="tta")
        if self.aggregation is not None and self.aggregation not in PLAIN:
            text = f"aggregation {self.aggregation[:50]!r}"
            raise OctcError("OCT-E104", text, hint=f"one of: {', '.join(PLAIN)}", place="aggregation")


@dataclass(frozen=True)
class Predicted:
    """Predictions. records: for every image, B-scan and eye, in order. document: as `data` of `octc predict --json`."""

    records: list[Record]
    document: dict[str, Any]


def predict_files(site: Site, model: Opened, paths: Sequence[Path], options: Options = Options()) -> Predicted:
    """Predict image files and volumes with the engines of a server.

    Raises:
        OctcError: E104 invalid options; E911 too many images or pixels; E909 the deadline has passed; and errors of the
            machine. Errors of a file are in its record.
    """
    options.check()
    inputs, left = _inputs(site, paths, options)
    how = aggregation_of(model.artifact, options.aggregation)
    engine, kept = site.engine(model), site.watches
    decode = _decoder(site, model)
    found = classify(engine, model.artifact, inputs, views=options.tta, batch=Batch(), threads=1, monitored=kept, decode=decode)
    tally, records = Tally(len(inputs)), []
    for record in with_eyes(_admitted(found, options.deadline), model.artifact, how):
        tally.add(record)
        records.append(record)
    site.watch(model, records)
    document = predictions(model.artifact, model.name, options.tta, tally, records)
    return Predicted(records, {**document, "left_out": [asdict(one) for one in left]})


def map_file(
    site: Site, model: Opened, paths: Sequence[Path], frame: int, options: Options = Options()
) -> tuple[Record, HeatMap | None]:
    """The prediction for one image or B-scan, and its occlusion heat map (None without a predicted class).

    Args:
        frame: index of the file or B-scan in the upload, from 0.

    Raises:
        OctcError: as `predict_files`; E107 there is no such file or B-scan.
    """
    inputs, _ = _inputs(site, paths, options)
    if not 0 <= frame < len(inputs):
        raise OctcError("OCT-E107", f"frame {frame} of {len(inputs)}", hint=f"frame 0 to {len(inputs) - 1}", place="frame")
    engine = site.engine(model)
    found = classify(engine, model.artifact, [inputs[frame]], batch=Batch(), decode=_decoder(site, model))
    record = next(_admitted(found, options.deadline))
    return record, map_of(engine, model.artifact, record, MapOptions(batch=BATCH))


def _inputs(site: Site, paths: Sequence[Path], options: Options) -> tuple[list[Input], list[Any]]:
    """The inputs within the limits, and what was left out."""
    limits = site.options
    files, left = scan_inputs([str(path) for path in paths])
    inputs: list[Input] = list(opened(files, Reading(options.allow_cut)))
    if len(inputs) > limits.max_frames:
        text = f"{len(inputs)} images and B-scans, the limit is {limits.max_frames}"
        raise OctcError("OCT-E911", text, hint="send fewer at once, or raise --max-frames")
    for one in inputs:
        if isinstance(one, Scan):
            _check_pixels(site, one.volume.rows * one.volume.columns)
    return inputs, left


def _check_pixels(site: Site, pixels: int) -> None:
    """Refuse an image with too many pixels (OctcError E911)."""
    if pixels > (most := int(site.options.max_pixels * 1e6)):
        text = f"an image of {pixels} pixels, the limit is {most}"
        raise OctcError(TOO_LARGE, text, hint="send a smaller one, or raise --max-pixels")


def _decoder(site: Site, model: Opened) -> Callable[[Path | Scan], Decoded]:
    """`decoded` after a check of the image size in the file header against the server's limit."""
    values = model.artifact.preprocess.value_range
    return lambda item: decoded(item, values, lambda pixels: _check_pixels(site, pixels))


def _admitted(records: Iterator[Record], deadline: float | None) -> Iterator[Record]:
    """The same records; an image beyond a limit, or the deadline, aborts the whole request."""
    for record in records:
        if record.error is not None and record.error.code == TOO_LARGE:
            raise record.error
        yield record
        if deadline is not None and time.monotonic() > deadline:
            raise OctcError("OCT-E909", "the request timed out", hint="send fewer images at once, or raise --timeout")
