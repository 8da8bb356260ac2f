"""Retargeting between made-up rigs whose answer is known."""

import math

import pytest
import torch
from rigs import LEGS, NUM_BONES, TRUNK, quadruped, walk

from bags_ns.animation.joint_rotations import pose_from_rotations
from bags_ns.animation.retarget import Body, about_z, local_turns, match_bones, retarget_roots, retarget_rotations
from bags_ns.rig.skeleton import Skeleton
from bags_ns.rig.transforms import rigid, so3_exp, transform_points


def body_around(skeleton, centers, seed=0):
    noise = 0.03 * torch.randn(len(centers), 40, 3, generator=torch.Generator().manual_seed(seed))
    return Body(skeleton, centers, (centers[:, None] + noise).flatten(0, 1))


def reordered(skeleton, centers, order):
    """The same rig with its bones in another order."""
    place = {bone: index for index, bone in enumerate(order)}
    other = Skeleton(len(order))
    parents = [int(skeleton.parents[bone]) for bone in order]
    other.parents.copy_(torch.tensor([place[parent] if parent >= 0 else -1 for parent in parents]))
    other.joints.copy_(skeleton.joints[order])
    return other, centers[order]


def turned_and_scaled(skeleton, centers, turn, scale):
    skeleton.joints.copy_(scale * skeleton.joints @ turn.T)
    return skeleton, scale * centers @ turn.T


@pytest.fixture
def pair():
    """A source, and a target of other proportions and bone order, twice as large, that faces another way."""
    order = [3, 0, 9, 4, 1, 7, 2, 8, 6, 5]
    turn = about_z(math.pi / 2)
    target = turned_and_scaled(*reordered(*quadruped(length=0.9, height=0.75), order), turn, 2.0)
    return body_around(*quadruped()), body_around(*target, seed=1), torch.tensor(order), turn


def test_bones_are_matched_whatever_order_size_and_heading(pair):
    source, target, order, turn = pair
    match = match_bones(source, target)
    assert torch.allclose(match.turn, turn, atol=1e-5) and torch.equal(match.bones, order)
    assert match.scale == pytest.approx(target.size() / source.size()) and 1.5 < match.scale < 2.3


def test_joints_turn_alike_in_the_targets_axes(pair):
    source, target, order, turn = pair
    rotations = torch.stack([walk(p) for p in torch.linspace(0, 6, 9).tolist()])
    moved = retarget_rotations(rotations, source.skeleton, target.skeleton, match_bones(source, target))
    assert torch.allclose(moved, turn @ rotations[:, order] @ turn.T, atol=1e-5)


def test_feet_swing_as_the_sources_do(pair):
    source, target, order, turn = pair
    rotations = torch.stack([walk(p) for p in torch.linspace(0, 12, 40).tolist()])
    moved = retarget_rotations(rotations, source.skeleton, target.skeleton, match_bones(source, target))
    for _, lower in LEGS.values():
        theirs = order.tolist().index(lower)
        swings = []
        for body, bone, turns, forward in (
            (source, lower, rotations, torch.tensor([0.0, 1, 0])),
            (target, theirs, moved, turn @ torch.tensor([0.0, 1, 0])),
        ):
            poses = [pose_from_rotations(r, body.skeleton).T_object_canonical[bone] for r in turns]
            feet = transform_points(torch.stack(poses), body.centers[bone].expand(len(poses), 1, 3))[:, 0]
            swings.append(feet @ forward)
        assert torch.corrcoef(torch.stack(swings))[0, 1] > 0.99


def test_bones_that_share_a_counterpart_do_not_turn_twice():
    """A target whose thigh is two bones, both matched with the source's one: the second is not turned against the first."""
    source = body_around(*quadruped())
    skeleton, centers = quadruped()
    upper, _ = LEGS["front_left"]
    finer = Skeleton(NUM_BONES + 1)
    finer.parents.copy_(torch.cat([skeleton.parents, torch.tensor([upper])]))
    finer.joints.copy_(torch.cat([skeleton.joints, centers[upper, None]]))
    target = Body(finer, torch.cat([centers, centers[upper, None] - torch.tensor([[0, 0, 0.02]])]), source.points)
    match = match_bones(source, target)
    assert match.bones[NUM_BONES] == upper
    moved = retarget_rotations(walk(1.0)[None], source.skeleton, finer, match)
    assert torch.allclose(moved[0, NUM_BONES], torch.eye(3), atol=1e-6)


def test_the_base_pose_becomes_the_canonical_one(pair):
    source, target, _, _ = pair
    rotations = torch.stack([walk(0.7), walk(2.0)])
    match = match_bones(source, target)
    moved = retarget_rotations(rotations, source.skeleton, target.skeleton, match, base=rotations[0])
    assert torch.allclose(moved[0], torch.eye(3).expand(NUM_BONES, 3, 3), atol=1e-5)
    assert not torch.allclose(moved[1, TRUNK + 2], torch.eye(3), atol=1e-2)


def test_the_roots_way_is_turned_and_scaled(pair):
    source, target, _, turn = pair
    match = match_bones(source, target)
    roots = rigid(so3_exp(torch.tensor([[0.0, 0, 0.3], [0, 0, 0.5]])), torch.tensor([[1.0, 1, 0], [1, 2, 0]]))
    moved = retarget_roots(roots, match, base=0)
    assert torch.allclose(moved[0], torch.eye(4), atol=1e-6)
    assert torch.allclose(moved[1, :3, 3], match.scale * turn @ torch.tensor([0.0, 1, 0]), atol=1e-5)
    assert torch.allclose(moved[1, :3, :3], about_z(0.2), atol=1e-5)


def test_local_turns_of_a_carried_child_vanish():
    skeleton, _ = quadruped()
    turns = so3_exp(torch.tensor([0.2, 0.1, 0.0])).expand(1, NUM_BONES, 3, 3)
    local = local_turns(turns, skeleton)
    assert torch.allclose(local[0, 1:], torch.eye(3).expand(NUM_BONES - 1, 3, 3), atol=1e-6)
