#!/usr/bin/env bash
# puncc 0.9.3: with randomisation off, its sets for 90 % hold three of four classes, of a network that is right in 99.7 % of images.
#
# Guess, written down before the run: APS and RAPS cover about 90 % where 90 % is asked for. rand=False had no guess of its own.
#
# Seen on 2026-12-02 (5,000 images to calibrate, 5,000 to test): APS(rand=False) covers 99.5 to 100 % with 2.9 to 3.1 labels an image, whether the network is right
# in 75, 90, 97 or 99.7 % of them; at most 10 % of the sets have one label (39 to 87 % with rand=True). RAPS with its penalties covers 98 to 100 %. The score of calibration counts the true class
# in, and the set takes every class up to the quantile and one more: sets by the rule of the score, with the first class always in, have 2.0 to 2.1
# labels, one less; with rand=True 0.9 to 1.7 at 90 %. Of all this the documentation of rand names that no set is empty. "One label: report; more: to the
# reader" sends nine of ten to the reader, and a network is not seen to be better. Randomise, or take LAC.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==1.26.4 puncc==0.9.3
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
from deel.puncc.api.prediction import BasePredictor
from deel.puncc.classification import APS, RAPS


class Given:
    def fit(self, *_, **__):
        pass

    def predict(self, probabilities):
        return probabilities


def drawn(edge):
    shares = np.array([0.55, 0.2, 0.15, 0.1])
    labels = rng.choice(4, 5000, p=shares)
    logits = rng.normal(0, 1, (5000, 4)) + np.log(shares)
    logits[np.arange(5000), labels] += edge
    made = np.exp(logits - logits.max(1, keepdims=True))
    return made / made.sum(1, keepdims=True), labels


def ranked(probabilities, labels):
    order = np.argsort(-probabilities, 1)
    return np.take_along_axis(probabilities, order, 1).cumsum(1), np.argmax(order == labels[:, None], 1)


def seen(method, kind, **settings):
    sets = kind(BasePredictor(Given(), is_trained=True), train=False, **settings)
    sets.fit(X_calib=known, y_calib=known_labels)
    answers = sets.predict(new, alpha=0.1)[1]
    covered = np.mean([label in np.asarray(answer).tolist() for label, answer in zip(new_labels, answers)])
    size = np.mean([len(answer) for answer in answers])
    single = np.mean([len(answer) == 1 for answer in answers])
    print(f"  {method}: covers {covered:.4f}, labels {size:.2f}, sets of one label {single:.4f}")
    return covered, size


rng = np.random.default_rng(0)
np.random.seed(0)
for edge in (1.5, 2.5, 3.5, 5):
    (known, known_labels), (new, new_labels) = drawn(edge), drawn(edge)
    print(f"right in {(new.argmax(1) == new_labels).mean():.4f}")
    sums, place = ranked(known, known_labels)
    quantile = np.quantile(sums[np.arange(5000), place], np.ceil(0.9 * 5001) / 5000, method="higher")
    sums, place = ranked(new, new_labels)
    inside = sums <= quantile
    inside[:, 0] = True
    print(f"  by hand, never empty: covers {inside[np.arange(5000), place].mean():.4f}, labels {inside.sum(1).mean():.2f}")
    covered, size = seen("rand=True", APS)
    assert 0.88 < covered < 0.92 and size < 1.8
    covered, size = seen("rand=False", APS, rand=False)
    assert covered > 0.99 and size > 2.8, "the behaviour changed"
    assert size - inside.sum(1).mean() > 0.8, "the behaviour changed"
    covered, size = seen("RAPS, 0.01 from 2", RAPS, rand=False, lambd=0.01, k_reg=2)
    covered, size = seen("RAPS, 0.1 from 1", RAPS, rand=False, lambd=0.1, k_reg=1)
    assert covered > 0.97
PY
