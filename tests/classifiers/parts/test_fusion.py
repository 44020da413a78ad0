"""Global feature fusion: starts at the pre-trained features, and every part of it learns."""

from __future__ import annotations

import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import nn

from tailorset.classifiers.parts.fusion import GlobalBranch, fuse


def tower(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "vit":
        visual: nn.Module = VisionTransformer(32, 8, 32, 2, 4, 2.0, output_dim=16)
    else:
        visual = ModifiedResNet([2, 1, 1, 1], 16, 4, 64, 8)
        for name, parameter in visual.named_parameters():
            if name.endswith("bn3.weight"):
                nn.init.ones_(parameter)
    return visual.requires_grad_(False).eval()


def images(kind: str) -> torch.Tensor:
    side = 32 if kind == "vit" else 64
    return torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("training", [False, True])
def test_starts_at_the_unfused_features(kind: str, training: bool) -> None:
    visual = tower(kind)
    before, keys = visual(images(kind)), visual.state_dict().keys()
    branches = fuse(visual).train(training)
    assert len(branches) == (2 if kind == "vit" else 5)
    assert visual.state_dict().keys() == keys
    after = visual(images(kind))
    assert not torch.equal(after, before)
    assert (after - before).norm() < 1e-3 * before.norm()


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_gradient_reaches_every_parameter(kind: str) -> None:
    visual = tower(kind)
    branches = fuse(visual).train()
    visual(images(kind)).square().sum().backward()
    if kind == "vit":  # the class token never reads the last block's patches: only dense features do
        del branches[-1]
    for name, parameter in branches.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_normalisation_trains_and_rests_with_the_branches() -> None:
    visual = tower("resnet")
    branches = fuse(visual)
    norm = branches[0].norm
    branches.eval()
    visual(images("resnet"))
    assert norm.num_batches_tracked == 0
    branches.train()
    visual(images("resnet"))
    assert norm.num_batches_tracked == 1
    assert norm.running_mean.abs().max() > 0
    assert visual.bn1.num_batches_tracked == 0


def test_a_change_at_one_position_reaches_all_others() -> None:
    torch.manual_seed(0)
    branch = GlobalBranch(16).eval()
    x = torch.rand(1, 9, 16)
    changed = x.clone()
    changed[:, 0] += 1
    difference = (branch(changed) - branch(x)).abs().amax(-1)[0]
    assert (difference > 0).all()


def test_matches_a_computation_by_hand() -> None:
    torch.manual_seed(0)
    branch = GlobalBranch(8, reduction=2, num_heads=2).eval()
    x = torch.rand(1, 3, 8)
    names = ("reduce", "aggregate", "broadcast", "value", "output")
    kernels = {name: getattr(branch, name).weight for name in names}
    r = (kernels["reduce"] @ x[0].T + branch.reduce.bias[:, None]).relu()  # (4, 3)
    context = torch.cat([r, r.mean(1, keepdim=True).expand_as(r)])
    weights = (kernels["aggregate"] @ r).softmax(1)  # (2, 3)
    gates = (kernels["broadcast"] @ context + branch.broadcast.bias[:, None]).sigmoid()
    values = kernels["value"] @ r  # (4, 3): two values a head
    spread = torch.cat([(values[2 * k : 2 * k + 2] @ weights[k])[:, None] * gates[k] for k in range(2)])
    expected = kernels["output"] @ spread * branch.norm.weight[:, None] / (1 + branch.norm.eps) ** 0.5
    torch.testing.assert_close(branch(x)[0].T, expected)


def test_other_towers_are_refused() -> None:
    with pytest.raises(ValueError, match="ModifiedResNet or VisionTransformer"):
        fuse(nn.Linear(2, 2))
