#!/usr/bin/env bash
# grad-cam 1.5.7: after a heat map the network of a running training is in eval mode, and its gradients are those of the map.
#
# Guess, written down before the run: a heat map that is drawn in the middle of a training leaves the network as it was: its mode, its
# gradients and its batch norms' statistics. So the step after it is the step that would have come without it.
#
# Seen on 2026-12-01: GradCAM puts the network into eval mode when it is made, and neither its end nor its context manager puts it back. A loop
# that calls train() once at its start goes on without dropout and with batch norms that learn no more, after the first picture of an epoch; the
# loss falls as usual. The map's gradients stay in the parameters too, and are added to the next step's, if that does not clear them first.
# Call train() and zero_grad() after every map.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 torchvision==0.29.1 timm==1.0.31 grad-cam==1.5.7
cd "$dir"
HOME="$dir" MPLCONFIGDIR="$dir" venv/bin/python -W ignore - <<'PY'
import timm
import torch
from pytorch_grad_cam import GradCAM

torch.manual_seed(0)
torch.set_num_threads(1)
network = timm.create_model("tf_efficientnet_lite0", num_classes=4, drop_rate=0.2).train()
scans, labels = torch.rand(4, 3, 96, 96), torch.tensor([0, 1, 2, 3])


def statistics() -> torch.Tensor:
    return network.bn1.running_mean.clone()


def changed_by_a_pass() -> bool:
    before = statistics()
    with torch.no_grad():
        network(scans)
    return not torch.equal(before, statistics())


assert network.training and changed_by_a_pass()
with GradCAM(network, [network.blocks[-1]]) as cam:
    maps = cam(scans, None)
left = sum(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())
learns = changed_by_a_pass()
print(f"maps {maps.shape}; afterwards training is {network.training}, norms learn: {learns}, tensors with gradients of the map: {left}")
assert not network.training and not learns, "the behaviour changed"
assert left > 0, "the behaviour changed"
PY
