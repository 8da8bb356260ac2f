"""Rigidity as training takes it, with gradients that are computed beside the value: that of the plain expression."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bags_ns import losses
from bags_ns.rig.bones import Bones
from bags_ns.rig.deformation import deformation_jacobian
from bags_ns.rig.motion import bone_transforms
from bags_ns.rig.replay import PLAIN_CALLS, ReplayedLoss
from bags_ns.rig.skinning import SkinningField
from bags_ns.rigidity import DeformationRigidity

NUM_BONES, NUM_GAUSSIANS = 6, 300


def random_module(device: str) -> DeformationRigidity:
    """With a residual that is not zero."""
    torch.manual_seed(0)
    module = DeformationRigidity(SkinningField(NUM_BONES), Bones(NUM_BONES))
    with torch.no_grad():
        module.skinning.output.weight.normal_(std=0.3)
        module.bones.quats.normal_()
        module.bones.log_scales.add_(0.3 * torch.randn(NUM_BONES, 3))
    return module.double().to(device)


def random_inputs(device: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical means, twists of the bones, and the indices of a sample in which some come twice."""
    generator = torch.Generator().manual_seed(seed)
    means = 0.3 * torch.randn(NUM_GAUSSIANS, 3, generator=generator, dtype=torch.float64)
    twists = 0.4 * torch.randn(NUM_BONES, 6, generator=generator, dtype=torch.float64)
    sample = torch.randint(NUM_GAUSSIANS, (200,), generator=generator)
    return means.to(device).requires_grad_(), twists.to(device).requires_grad_(), sample.to(device)


def plain(module: DeformationRigidity, means: Tensor, twists: Tensor, sample: Tensor) -> Tensor:
    """Of the means in the sample, with the skinning weights of all."""
    transforms = bone_transforms(twists, module.bones.centers)
    weights = module.skinning(means, module.bones)[sample]
    return losses.rigidity(deformation_jacobian(means[sample], weights, module.skinning, module.bones, transforms))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_value_and_gradients_stay_those_of_the_plain_expression_while_parameters_change(device: str) -> None:
    module = random_module(device)
    replayed, optimizer = ReplayedLoss(module), torch.optim.Adam(module.parameters(), lr=1e-2)
    for step in range(PLAIN_CALLS + 4):
        means, twists, sample = random_inputs(device, step)
        leaves = [means, twists, *module.parameters()]
        expected = plain(module, means, twists, sample)
        points = means.index_select(0, sample)
        value = replayed(points, bone_transforms(twists, module.bones.centers))
        assert torch.allclose(value, expected, rtol=1e-9)
        actual = torch.autograd.grad(3.0 * value, leaves)
        for ours, theirs in zip(actual, torch.autograd.grad(3.0 * expected, leaves), strict=True):
            assert (ours - theirs).norm() <= 1e-9 * theirs.norm()
        for parameter, gradient in zip(module.parameters(), actual[2:], strict=True):
            parameter.grad = gradient
        optimizer.step()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_two_losses_can_be_held_before_either_is_differentiated(device: str) -> None:
    module = random_module(device)
    replayed, held = ReplayedLoss(module), []
    for seed in range(PLAIN_CALLS + 3):
        means, twists, _ = random_inputs(device, seed)
        held.append((means, replayed(means, bone_transforms(twists, module.bones.centers).detach())))
    for seed, (means, value) in enumerate(held):
        _, twists, _ = random_inputs(device, seed)
        expected = plain(module, means, twists, torch.arange(NUM_GAUSSIANS, device=device))
        assert torch.allclose(value, expected, rtol=1e-9)
        (ours,), (theirs,) = torch.autograd.grad(value, means), torch.autograd.grad(expected, means)
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


def test_the_model_owns_its_parameters_once(clip, tmp_path) -> None:
    from tiny_runs import trainer_on

    model = trainer_on(clip, tmp_path).model
    assert not [name for name in model.state_dict() if "rigidity" in name]
