#!/usr/bin/env bash
# torch 2.14.1: a bias on attention that is added in training shuts tokens out in evaluation.
#
# Guess, written down before the run: nn.TransformerEncoderLayer with a float mask gives the same numbers in eval() with gradients and under no_grad.
#
# Seen on 2026-12-02: with gradients (in training too) the float mask is added to the scores, as documented. In eval() under no_grad or inference_mode,
# or with frozen weights, every entry that is not 0 counts as "do not look there". A bias by distance (-0.1 for each B-scan between two of a
# volume) is 0 on the diagonal: each B-scan looks at itself alone, bit for bit as with a mask that allows nothing else, and the volume's answer
# is one from single scans. A random bias, without zeros, gives NaN everywhere. No warning. So the validation during a training that keeps
# gradients, and the deployed network, are two networks. A mask of 0 and -inf is right in both. torch.backends.mha.set_fastpath_enabled(False)
# is right, and nn.MultiheadAttention alone was right.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 numpy==2.4.6
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import torch
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
scans = torch.randn(3, 25, 16)
place = torch.arange(25.0)
distance = -0.1 * (place[:, None] - place).abs()
masks = {
    "by distance": distance,
    "random": torch.randn(25, 25),
    "0 and -inf": nn.Transformer.generate_square_subsequent_mask(25),
}


def apart(left, right):
    return "nan" if right.isnan().all() else round(float((left - right).abs().max()), 5)


found = {}
for name, mask in masks.items():
    layer.train()
    training = layer(scans, mask).detach()
    layer.eval()
    assert torch.equal(layer(scans, mask).detach(), training)
    with torch.no_grad():
        deployed = layer(scans, mask)
        torch.backends.mha.set_fastpath_enabled(False)
        slow = layer(scans, mask)
        torch.backends.mha.set_fastpath_enabled(True)
        blind = layer(scans, torch.eye(25) == 0)
        free = layer(scans)
    with torch.inference_mode():
        assert torch.equal(layer(scans, mask).nan_to_num(9), deployed.nan_to_num(9))
    found[name] = apart(training, deployed)
    print(f"{name}: with and without gradients {found[name]}, without the fast path {apart(training, slow)}, effect of the mask {apart(training, free)}")
    assert torch.allclose(slow, training, atol=1e-5)
    if name == "by distance":
        assert torch.equal(deployed, blind), "the behaviour changed"
assert found["by distance"] > 0.5 and found["random"] == "nan", "the behaviour changed"
assert found["0 and -inf"] < 1e-4
PY
