"""The run of an imported network: what it keeps of it, and how an export reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octc.core.errors import OctcError
from octc.core.files import read_json, sha256_file, write_bytes, write_json
from octc.datasets.base import Sample
from octc.datasets.split import Split, read_split
from octc.export.golden import golden_candidates
from octc.imaging.preprocess import Preprocess
from octc.store.artifacts import Artifact
from octc.store.runs import Run
from octc.train.loop.checkpoint import Checkpoint

if TYPE_CHECKING:
    from octc.export.imports.network import ImportedFile, OnnxNetwork

FOLDER = "imported"  # of a run
FACTS, NETWORK, MAIN = "imported.json", "network.onnx", "model.onnx"


def keep_network(run: Run, made: ImportedFile, artifact: Artifact) -> None:
    """Keep in its run what later exports read."""
    home = run.path / FOLDER
    home.mkdir()
    facts: dict[str, Any] = {
        "model": artifact.model, "classes": list(artifact.classes), "preprocess": artifact.preprocess.to_json(),
        "target": made.target, "precision": artifact.precision, "weights": artifact.lineage["weights"], "sha256": None,
    }  # fmt: skip
    if made.network is not None:
        write_bytes(home / NETWORK, made.network.read_bytes())
        write_bytes(home / MAIN, made.files[0].read_bytes())
        facts["sha256"] = sha256_file(home / NETWORK)
    write_json(home / FACTS, facts)


def is_imported(run: Run) -> bool:
    """Whether a run holds a network that was imported."""
    return (run.path / FOLDER / FACTS).is_file()


def read_facts(run: Run) -> dict[str, Any]:
    """What `keep_network` wrote (E307 where it cannot be read)."""
    try:
        found: dict[str, Any] = read_json(run.path / FOLDER / FACTS)
        Preprocess.from_json(found["preprocess"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"{FACTS} of {run.id} is not valid: {error}"
        raise OctcError("OCT-E307", text, hint="octc import it again", place=str(run.path)) from error
    return found


def lineage_of(run: Run, split: Split) -> dict[str, Any]:
    """Where the network of an imported run comes from, for manifests."""
    return {
        "run": run.id, "teacher_run": None, "recipe": "imported", "dataset": split.dataset, "split_digest": split.digest,
        "data_digest": None, "protocol": split.protocol, **split.patient_ids.to_json(),
    }  # fmt: skip


def candidates(split: Split) -> list[Sample]:
    """Training images of every class, the first ten of them spread over the classes."""
    found = golden_candidates(split.parts["train"], len(split.classes))
    step = max(1, len(found) // 10)
    return [*found[::step], *(one for i, one in enumerate(found) if i % step)]


def load_imported(run: Run) -> tuple[OnnxNetwork, Checkpoint, Split]:
    """The network of an imported run, what is known of it, and its split.

    Raises:
        OctcError: E411 it is an IR, or quantised already; E307 its files are not those of the import; E216 no split.
    """
    from octc.export.imports.graph import refused  # needs onnx, which an analysis of a run of torch does without
    from octc.export.imports.network import OnnxNetwork

    home, facts = run.path / FOLDER, read_facts(run)
    if facts["target"] != "onnx" or facts["precision"] != "fp32":
        text = f"{run.id} holds a network of {facts['target']} in {facts['precision']}: other files are made of FP32 ONNX"
        raise refused(text, f"octc import its FP32 ONNX file, or a file of it that is INT8 already: --run {run.id}", str(home))
    if sha256_file(home / NETWORK) != facts["sha256"]:
        raise OctcError(
            "OCT-E307", "the network is not the one that was imported", hint="octc import it again", place=str(home)
        )
    split = read_split(run.split)
    checkpoint = Checkpoint(
        role="student", model=str(facts["model"]), model_kwargs={}, classes=tuple(facts["classes"]),
        preprocess=Preprocess.from_json(facts["preprocess"]), recipe={"name": "imported"}, dataset=split.dataset,
        split_digest=split.digest, data_digest="", weights=facts["weights"], sha256=str(facts["sha256"]),
    )  # fmt: skip
    return OnnxNetwork(home / NETWORK, home / MAIN), checkpoint, split
