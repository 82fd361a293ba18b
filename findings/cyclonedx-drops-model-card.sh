#!/usr/bin/env bash
# cyclonedx-python-lib 11.12.0: reading a valid ML-BOM and writing it again loses the model card, without a word.
#
# Guess, written down before the run: Bom.from_json of a CycloneDX 1.6 document whose component is a machine-learning model
# keeps its modelCard (limits of use, metrics), or refuses the document.
#
# Seen on 2026-11-30: the library's own strict validator accepts the document; Bom.from_json and JsonV1Dot6 then write the
# component without modelCard, and the data set without its data, and the strict validator accepts that as well. No exception,
# no warning. So a tool that merges, signs or adds a licence to the BOM of a classifier by this library throws away what the
# BOM of a model is for: "not for children" and the accuracy. Work on the JSON itself.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check "cyclonedx-python-lib[json-validation]==11.12.0" py-serializable==2.2.0
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import json

from cyclonedx.model.bom import Bom
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

card = {
    "modelParameters": {"task": "classification", "architectureFamily": "convolutional"},
    "quantitativeAnalysis": {"performanceMetrics": [{"type": "accuracy", "value": "0.97", "slice": "test"}]},
    "considerations": {"technicalLimitations": ["not for children"]},
}
document = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "components": [
        {"type": "machine-learning-model", "bom-ref": "student", "name": "student", "version": "1", "modelCard": card},
        {"type": "data", "bom-ref": "clinic", "name": "clinic", "data": [{"type": "dataset", "classification": "patients"}]},
    ],
}
strict = JsonStrictValidator(SchemaVersion.V1_6)
assert strict.validate_str(json.dumps(document)) is None
text = JsonV1Dot6(Bom.from_json(document)).output_as_string()
written = {one["name"]: one for one in json.loads(text)["components"]}
print("written:", json.dumps(written), "valid:", strict.validate_str(text) is None)
assert set(written) == {"student", "clinic"} and strict.validate_str(text) is None
assert "modelCard" not in written["student"] and "data" not in written["clinic"], "the behaviour changed"
PY
