#!/usr/bin/env bash
# huggingface_hub 2.4.0: a model card lists the result on one data set below the name of another.
#
# Guess, written down before the run: a ModelCardData with an accuracy on "ucsd" and one on "clinic" says so when it is written
# and read again.
#
# Seen on 2026-11-30: both stand below "ucsd" (0.97 and 0.91). Results are put together by task and by type, config, split and
# revision of the data set, and the name is not among these: the first one's is taken. No warning. Data sets of hospitals are
# on no hub, so their type is nearly always one word ("oct", "custom"), and the accuracy at the other clinic, the number that
# a reader looks for, becomes a second accuracy of the public set. Give every data set a type, config or split of its own.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check Jinja2==3.1.6 huggingface_hub==2.4.0
cd "$dir"
HOME="$dir" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 venv/bin/python -W error - <<'PY'
from huggingface_hub import EvalResult, ModelCard, ModelCardData


def written(**of_the_clinic):
    """Name of the data set and accuracy, as they come back from the file."""
    common = {"task_type": "image-classification", "dataset_type": "oct", "metric_type": "accuracy"}
    results = [
        EvalResult(**common, dataset_name="ucsd", metric_value=0.97),
        EvalResult(**{**common, **of_the_clinic}, dataset_name="clinic", metric_value=0.91),
    ]
    data = ModelCardData(model_name="student", license="mit", eval_results=results)
    ModelCard.from_template(data, template_str="---\n{{ card_data }}\n---\n# student\n").save("card.md")
    return [(one.dataset_name, one.metric_value) for one in ModelCard.load("card.md").data.eval_results]


same, split, kind = written(), written(dataset_split="clinic"), written(dataset_type="oct-clinic")
print("one type:", same, "a split of its own:", split, "a type of its own:", kind)
assert split == kind == [("ucsd", 0.97), ("clinic", 0.91)]
assert same == [("ucsd", 0.97), ("ucsd", 0.91)], "the behaviour changed"
PY
