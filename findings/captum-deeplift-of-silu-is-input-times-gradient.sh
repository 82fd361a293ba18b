#!/usr/bin/env bash
# captum 0.9.0: with SiLU, hard-swish, GELU or ReLU6, DeepLift is input times gradient, and guided backpropagation the plain gradient.
#
# Guess, written down before the run: DeepLift's map adds up to the difference of the logits for any network (that is what it is for), and an activation
# for which DeepLift or GuidedBackprop has no rule is refused or named, as captum's LRP does.
#
# Seen on 2026-12-02: with ReLU and Sigmoid the sum is the difference to five digits. With SiLU, hard-swish, GELU and ReLU6, which are the
# activations of EfficientNet, MobileNet and ConvNeXt, the map equals InputXGradient, and its sum is off by 2 to 33 % or has the other sign. GuidedBackprop
# and Deconvolution are then the plain gradient (for Sigmoid too). DeepLift warns about hooks "on non-linear activations" as it always
# does, and says nothing of those that it has no rule for. LRP refuses a network with SiLU by name. A comparison of three methods that agree so agrees with
# itself, and teacher (ReLU) and student (SiLU) are explained by two methods. Look at the sum, or take integrated gradients.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 captum==0.9.0
cd "$dir"
HOME="$dir" MPLCONFIGDIR="$dir" venv/bin/python - <<'PY'
import warnings

import torch
from captum.attr import LRP, Deconvolution, DeepLift, GuidedBackprop, InputXGradient, Saliency
from torch import nn

torch.manual_seed(0)
image = 2 * torch.randn(1, 1, 16, 16)
black = torch.zeros_like(image)


def network(activation):
    torch.manual_seed(1)
    made = [nn.Conv2d(1, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 3, padding=1), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    made = nn.Sequential(*made, nn.Linear(8, 4)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made


def explained(activation):
    """Sum of DeepLift's map over the difference of the logits; whether it is input times gradient; whether the guided maps are the gradient."""
    net = network(activation)

    def made(method, **options):
        return method(net).attribute(image.clone().requires_grad_(), target=0, **options)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        deep = made(DeepLift, baselines=black)
        guided, deconvolution = made(GuidedBackprop), made(Deconvolution)
    assert activation is nn.ReLU or not any(activation.__name__ in str(one.message) for one in said), "the behaviour changed"
    plain = made(Saliency, abs=False)
    with torch.no_grad():
        share = float(deep.sum() / (net(image) - net(black))[0, 0])
    same = torch.allclose(deep, made(InputXGradient), atol=1e-5)
    return share, same, torch.allclose(guided, plain), torch.allclose(deconvolution, plain)


for activation in (nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Hardswish, nn.GELU, nn.ReLU6):
    share, same, guided, deconvolution = explained(activation)
    print(f"{activation.__name__}: sum of the map / difference {share:.3f}, input x gradient {same}, guided is the gradient {guided}")
    if activation in (nn.ReLU, nn.Sigmoid):
        assert abs(share - 1) < 1e-3 and not same
    else:
        assert same and abs(share - 1) > 0.01, "the behaviour changed"
    assert guided == deconvolution == (activation is not nn.ReLU), "the behaviour changed"
try:
    LRP(network(nn.SiLU)).attribute(image.clone().requires_grad_(), target=0)
except TypeError as error:
    print("LRP:", str(error)[:70])
    assert "SiLU" in str(error)
else:
    raise AssertionError("LRP takes SiLU now")
PY
