"""A bill of materials of an artifact in CycloneDX 1.6 (JSON): its files with their checksums, what made it, data, weights.

https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from octc.bench.report.collect.run_summary import RunSummary
from octc.store.artifacts import MANIFEST, Artifact

SPEC = "1.6"
SPACE = uuid.UUID("6f7c6f0e-5a1b-5f0a-9d3c-0c7c0de0c7c0")


def cyclonedx(summary: RunSummary, time_utc: str) -> dict[str, Any]:
    """One document for all artifacts of the report. The same artifacts give the same serial number."""
    artifacts = [found.artifact for found in summary.found]
    sums = sorted(summary.checksums.values())
    first = artifacts[0]
    versions: Mapping[str, Any] = first.lineage.get("versions") or {}
    libraries = [_library(name, str(version)) for name, version in sorted(versions.items())]
    models = [_model(artifact, summary.checksums[artifact.name]) for artifact in artifacts]
    octc = {"type": "application", "name": "octc", "version": str(versions.get("octc", "unknown"))}
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(SPACE, ' '.join(sums))}",
        "version": 1,
        "metadata": {
            "timestamp": time_utc,
            "tools": {"components": [octc]},
            "component": {"type": "machine-learning-model", "bom-ref": "run", "name": str(first.lineage.get("run"))},
        },
        "components": [*models, _data(first), *libraries],
        "dependencies": [
            {"ref": "run", "dependsOn": [m["bom-ref"] for m in models]},
            *({"ref": m["bom-ref"], "dependsOn": ["data", *(x["bom-ref"] for x in libraries)]} for m in models),
        ],
    }


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:generic/python@{version}" if name == "python" else f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _model(artifact: Artifact, sum_: str) -> dict[str, Any]:
    lineage = artifact.lineage
    channels, size = artifact.preprocess.channels, artifact.preprocess.size
    weights = lineage.get("weights")
    licence = weights.get("licence") if isinstance(weights, dict) else None
    properties = {
        "target": artifact.target,
        "precision": artifact.precision,
        "classes": ", ".join(artifact.classes),
        "teacher": lineage.get("teacher_run"),
        "checkpoint sha256": lineage.get("checkpoint"),
        "start weights": weights.get("source") if isinstance(weights, dict) else None,
    }
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"artifact:{artifact.name}",
        "name": artifact.name,
        "description": f"{artifact.role} {artifact.model}",
        "hashes": [{"alg": "SHA-256", "content": sum_}],
        "modelCard": {
            "modelParameters": {
                "task": "classification",
                "architectureFamily": artifact.model,
                "modelArchitecture": artifact.model,
                "datasets": [{"ref": "data"}],
                "inputs": [{"format": f"uint8 [N, {channels}, {size}, {size}]"}],
                "outputs": [{"format": f"float32 logits [N, {len(artifact.classes)}]"}],
            }
        },
        "properties": [{"name": f"octc:{name}", "value": str(value)} for name, value in properties.items() if value],
        "components": [
            {
                "type": "file",
                "bom-ref": f"artifact:{artifact.name}/{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
            }
            for name, entry in artifact.files.items()
            if name != MANIFEST
        ],
    }
    if licence:
        found["licenses"] = [{"license": {"name": str(licence)}}]
    return found


def _data(artifact: Artifact) -> dict[str, Any]:
    from octc.datasets.registry import DATASETS

    name = str(artifact.lineage.get("dataset"))
    spec = DATASETS.get(name)
    found: dict[str, Any] = {"type": "data", "bom-ref": "data", "name": name, "data": [{"type": "dataset", "name": name}]}
    digest = artifact.lineage.get("data_digest")
    if isinstance(digest, str) and len(digest) == 64:
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if spec is not None:
        found |= {"description": spec.source, "licenses": [{"license": {"name": spec.licence}}]}
    return found
