"""Retargeting between made-up rigs: who has which paw is known, and so is how they walk."""

import math

import pytest
import torch
from rigs import LEGS, NECK, NUM_BONES, TRUNK, quadruped

from bags_ns.animation.extremities import NAMES, NUM_PAWS, Body, find_extremities
from bags_ns.animation.joint_rotations import bones_from_rotations, pose_from_rotations
from bags_ns.animation.retarget import axes_turn, reach, retarget_roots, retargeted_paths
from bags_ns.rig.skeleton import Skeleton
from bags_ns.rig.transforms import rigid, so3_exp

PAWS = ("front_left", "front_right", "back_left", "back_right")
"""In the order of NAMES."""
PHASES = torch.linspace(0, 12, 40).tolist()


def about_z(angle):
    return so3_exp(torch.tensor([0.0, 0.0, angle]))


def walk(phase, pace=False):
    """Local rotations of a walk forward: a leg that swings to the front bends its knee; it faces -y."""
    vectors = torch.zeros(NUM_BONES, 3)
    for name, (upper, lower) in LEGS.items():
        together = ("left" in name) if pace else name in ("front_left", "back_right")
        own = phase + (0 if together else math.pi)
        vectors[upper, 0] = 0.5 * math.sin(own)
        vectors[lower, 0] = 0.9 * max(0.0, -math.cos(own))
    vectors[NECK, 0] = 0.15 * math.sin(2 * phase)
    return so3_exp(vectors)


def animal(skeleton, centers, rotations, seed=0):
    """A ball of points about each bone, walking."""
    noise = 0.03 * torch.randn(len(centers), 40, 3, generator=torch.Generator().manual_seed(seed))
    points = (centers[:, None] + noise).flatten(0, 1)
    weights = torch.eye(len(centers)).repeat_interleave(40, dim=0)
    return Body(skeleton, centers, points, weights, bones_from_rotations(rotations, skeleton))


def rearranged(order, turn, scale, **proportions):
    """A quadruped with its bones in another order, turned and scaled."""
    skeleton, centers = quadruped(**proportions)
    place = {bone: index for index, bone in enumerate(order)}
    other = Skeleton(len(order))
    parents = [int(skeleton.parents[bone]) for bone in order]
    other.parents.copy_(torch.tensor([place[parent] if parent >= 0 else -1 for parent in parents]))
    other.joints.copy_(scale * skeleton.joints[order] @ turn.T)
    return other, scale * centers[order] @ turn.T


@pytest.fixture(scope="module")
def source():
    return animal(*quadruped(), torch.stack([walk(phase) for phase in PHASES]))


@pytest.fixture(scope="module")
def target():
    """Twice as large, of other proportions and bone order, facing another way, pacing at other phases."""
    order, turn = [3, 0, 9, 4, 1, 7, 2, 8, 6, 5], about_z(2.0)
    rotations = torch.stack([walk(1.0 + 0.8 * phase, pace=True)[order] for phase in PHASES])
    return (
        animal(*rearranged(order, turn, 2.0, length=0.9, height=0.75), turn @ rotations @ turn.T, seed=1),
        torch.tensor(order),
        turn,
    )


def test_paws_and_head_are_found_whatever_order_size_and_heading(source, target):
    body, order, turn = target
    for animal_, bones, axes in (
        (source, torch.arange(NUM_BONES), torch.eye(3)),
        (body, order, turn),
    ):
        found = find_extremities(animal_)
        forward, left = axes @ torch.tensor([0.0, -1, 0]), axes @ torch.tensor([1.0, 0, 0])
        assert found.axes[0] @ forward > 0.99 and found.axes[1] @ left > 0.99 and found.axes[2, 2] == 1
        shares = found.handles[..., 3]  # of each bone in each extremity
        for paw, name in enumerate(PAWS):
            assert shares[paw, bones.tolist().index(LEGS[name][1])] > 0.95
        assert shares[NAMES.index("head"), bones.tolist().index(NECK)] == 1
        assert torch.allclose(found.at(animal_.T_object_canonical), found.paths, atol=1e-6)


def test_a_walk_backwards_is_a_walk_the_other_way(source):
    backwards = Body(**{**vars(source), "T_object_canonical": source.T_object_canonical.flip(0)})
    assert torch.allclose(find_extremities(backwards).axes[:2], -find_extremities(source).axes[:2], atol=1e-5)


@pytest.mark.parametrize("swapped", [False, True])
def test_feet_swing_as_the_sources_do(source, target, swapped):
    giver, taker = (target[0], source) if swapped else (source, target[0])
    theirs, ours = find_extremities(giver), find_extremities(taker)
    wanted = retargeted_paths(theirs, ours)
    moved = ours.at(bones_from_rotations(reach(wanted, taker, ours), taker.skeleton))
    for extremity in range(NUM_PAWS):
        for axis in (0, 2):
            pair = theirs.paths[:, extremity] @ theirs.axes[axis], moved[:, extremity] @ ours.axes[axis]
            assert torch.corrcoef(torch.stack(pair))[0, 1] > 0.95
    steps = [(x.paths if x is theirs else moved)[:, :NUM_PAWS] @ x.axes[0] for x in (theirs, ours)]
    ratio = (steps[1].std(0) / steps[0].std(0)).mean()
    assert ratio == pytest.approx(ours.height / theirs.height, rel=0.15)


def test_the_body_keeps_its_place_while_the_legs_walk(source, target):
    body, order, _ = target
    ours = find_extremities(body)
    bones = bones_from_rotations(reach(retargeted_paths(find_extremities(source), ours), body, ours), body.skeleton)
    trunk = order.tolist().index(TRUNK)
    moved = (bones[:, trunk, :3, :3] @ body.centers[trunk]) + bones[:, trunk, :3, 3] - body.centers[trunk]
    legs = ours.at(bones)[:, :NUM_PAWS].std(0).norm(dim=-1).min()
    assert moved.norm(dim=-1).max() < 0.3 * legs


def test_an_animal_that_stands_lets_the_other_stand(source, target):
    still = Body(**{**vars(source), "T_object_canonical": torch.eye(4).repeat(5, NUM_BONES, 1, 1)})
    body = target[0]
    ours = find_extremities(body)
    paths = retargeted_paths(find_extremities(still), ours)
    assert torch.allclose(paths, ours.paths.mean(0).expand_as(paths), atol=1e-6)
    rotations = reach(paths, body, ours)
    assert torch.allclose(rotations, rotations[:1].expand_as(rotations), atol=1e-3)


def test_the_roots_way_is_turned_and_scaled(source, target):
    theirs, ours = find_extremities(source), find_extremities(target[0])
    turn, scale = axes_turn(theirs, ours), ours.height / theirs.height
    assert torch.allclose(turn, target[2], atol=0.02) and 2 < scale < 3
    roots = rigid(so3_exp(torch.tensor([[0.0, 0, 0.3], [0, 0, 0.5]])), torch.tensor([[1.0, 1, 0], [1, 2, 0]]))
    moved = retarget_roots(roots, theirs, ours, base=0)
    assert torch.allclose(moved[0], torch.eye(4), atol=1e-6)
    assert torch.allclose(moved[1, :3, 3], scale * turn @ torch.tensor([0.0, 1, 0]), atol=1e-5)
    assert torch.allclose(moved[1, :3, :3], about_z(0.2), atol=1e-5)


def test_an_animal_without_paws_is_refused(source):
    ball = Body(source.skeleton, source.centers, source.points[:3], source.weights[:3], source.T_object_canonical)
    with pytest.raises(ValueError, match="no four"):
        find_extremities(ball)


def test_many_poses_at_once_are_each_one(source):
    rotations = torch.stack([walk(phase) for phase in PHASES[:3]])
    together = bones_from_rotations(rotations, source.skeleton)
    for bones, turns in zip(together, rotations, strict=True):
        alone = pose_from_rotations(turns, source.skeleton).T_object_canonical
        assert torch.allclose(bones, alone, atol=1e-6)  # products of many matrices may round differently
