"""Options of `octc import`, without importing torch or onnx."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from octc.core.data_options import DataOptions
from octc.core.options import option


@dataclass(frozen=True)
class ImportOptions(DataOptions):
    """Options of `octc.import_model`, besides preprocessing and classes.

    Attributes:
        data: labelled images (CLASS/IMAGE, or a table); a run is made for them under run_dir.
        run: the run of an earlier import that this file belongs to (its INT8 version).
        held_out: states that no image of `data` was used for training; otherwise every verdict notes that this is unknown.
    """

    out: str = option("artifacts", shown="Folder of the artifact, without --data", metavar="DIR")
    run: str | None = option(None, shown="Run of an earlier import that this file belongs to (its INT8 version)", metavar="RUN")
    held_out: bool = option(False, shown="State that no image under --data was used for training", names=("--held-out",))
    images: str | None = option(None, shown="Images to check the preprocessing on, without --data", metavar="DIR")
    output: str | None = option(None, shown="Output with the logits, if the graph has several", metavar="NAME")
    name: str | None = option(None, shown="Name of the network in manifests (the file name)", metavar="NAME")
    seed: int = option(0, shown="Seed of the split", within=(0, None))
    force: bool = option(False, shown="Replace an existing artifact", names=("--force",))
    data: Path | None = None
    run_dir: Path = Path("runs")
