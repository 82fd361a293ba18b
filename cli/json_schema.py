"""JSON Schemas of the output of `--json` (an envelope around the command's document) and of files that octc writes.

Both are generated from the structs in octc/schemas/.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from octc.core.deprecated import COMMAND, new_of
from octc.core.errors import OctcError

# command -> module of octc/schemas/ and the structs that its document may be
DOCUMENTS: dict[str, tuple[str, ...]] = {
    "abstain": ("rules", "RulesStored"),
    "analyze": ("commands", "Analysis"),
    "bench": ("bench", "BenchResult", "BenchPlan", "ComparedResults"),
    "artifact sign": ("commands", "SignedArtifacts"),
    "artifact licences": ("licences", "ArtifactLicences"),
    "artifact verify": ("commands", "CheckedArtifacts"),
    "choose": ("evaluation", "Choice"),
    "compare": ("compared", "Compared", "ComparedTables"),
    "completion": ("commands", "Completion"),
    "config init": ("commands", "ConfigFile"),
    "config show": ("commands", "Settings"),
    "config validate": ("commands", "ConfigValues"),
    "data audit": ("data", "Audit"),
    "data check": ("data", "Audit"),
    "data convert": ("volumes", "Converted"),
    "data fetch": ("data", "Fetched"),
    "data list": ("data", "KnownSets"),
    "data paired-synthetic": ("data", "Drawn"),
    "data overlap": ("licences", "SharedImages"),
    "data patients": ("data", "StatedPatients"),
    "data synthetic": ("data", "Drawn"),
    "data split": ("data", "ShownSplit"),
    "data stats": ("data", "PixelStatistics"),
    "data synthetic-volumes": ("volumes", "DrawnVolumes"),
    "data volume": ("volumes", "Volumes"),
    "doctor": ("commands", "Health"),
    "dossier": ("change", "ChangeDossier"),
    "eval": ("evaluation", "Evaluation", "EvaluatedFolds"),
    "explain": ("commands", "Entry", "Entries", "PrintedSchema"),
    "import": ("export", "ImportedModel"),
    "export": ("export", "Exports", "ExportPlan", "BuiltEngine"),
    "lint": ("commands", "Lint"),
    "list": ("commands", "Listing"),
    "monitor": ("monitor", "Monitored"),
    "predict": ("predict", "Predictions", "ArchiveDone"),
    "ptq": ("commands", "Engines"),
    "report": ("commands", "Report"),
    "results": ("results", "ArchiveSummary", "ArchiveRows", "ArchiveAccuracy", "ArchivePair"),
    "runs list": ("runs", "Runs"),
    "runs prune": ("runs", "Pruned"),
    "runs show": ("runs", "ShownRun"),
    "search": ("search", "SearchFile", "SearchDryRun"),
    "serve": ("predict", "ServedModels"),
    "serve-config": ("commands", "ServerConfig"),
    "simplify": ("simplifying", "SimplifyPlan", "SimplifiedRun"),
    "threshold": ("rules", "RulesStored"),
    "train retnet-student": ("train", "TrainedRetnet"),
    "train retnet-teacher": ("train", "TrainedRetnet"),
    "train student": ("train", "Plan", "Trained", "Folds", "LackingFolds", "FoldsPlan"),
    "train teacher": ("train", "Plan", "Trained", "Folds", "LackingFolds", "FoldsPlan"),
    "verify": ("verify", "VerifyReport", "DeviceReport", "MultilabelReport", "FleetReport", "RemoteVerdict"),
    "version": ("commands", "Version"),
    "weights convert": ("train", "ConvertedWeights"),
}


# file -> module of octc/schemas/ and its structs
FILES: dict[str, tuple[str, ...]] = {
    "artifact.json": ("artifact", "Manifest"),
    "bench-HOST.json": ("bench", "BenchResult"),
    "figures.json": ("evaluation", "EvaluationFile"),
    "monitor.json": ("monitor", "MonitorReport"),
    "run.json": ("runs", "RunFile"),
    "search.json": ("search", "SearchFile"),
    "split.json": ("split", "SplitFile"),
    "verify.json": ("verify", "VerifyFile"),
}


def schema_names() -> list[str]:
    """Names of the commands and files that have a schema."""
    return [*sorted(DOCUMENTS), *FILES]


def schema_of(command: str) -> dict[str, Any]:
    """The self-contained JSON Schema of a command's output or of a file (OctcError E101: there is none).

    `data` of the envelope is the command's document; after a failure it may be empty.
    """
    command = new_of(COMMAND, command)
    if command not in schema_names():
        text = f"no such command or file: {command}"
        raise OctcError("OCT-E101", text, hint=f"one of: {', '.join(schema_names())}", place="--schema")
    from octc.schemas.common import json_schema
    from octc.schemas.envelope import Envelope

    module, *names = {**DOCUMENTS, **FILES}[command]
    kinds = [getattr(import_module(f"octc.schemas.{module}"), name) for name in names]
    if command in FILES:
        return json_schema(f"octc:file:{command}:1", command, *kinds)
    name = f"octc:command:{command.replace(' ', '-')}:1"
    whole, own = json_schema(name, f"octc {command}", Envelope), json_schema(f"{name}:data", f"octc {command}", *kinds)
    data = {"$ref": own["$id"]}
    return {
        **whole,
        "$defs": {**whole["$defs"], "data": own},
        "if": {"properties": {"status": {"const": "ok"}}},
        "then": {"properties": {"data": data}},
        "else": {"properties": {"data": {"anyOf": [{"maxProperties": 0}, data]}}},
    }
