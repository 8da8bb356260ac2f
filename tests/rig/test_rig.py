"""Laws of the rig: rotations, skinning, motion's gauge, deformation, Jacobian, rigidity, skeleton."""

import math

import pytest
import torch

from bags_ns.losses import bone_placement, rigidity, saturating, smoothness, ssim
from bags_ns.rig.bones import Bones, squared_mahalanobis
from bags_ns.rig.deformation import apply_transforms, blend_transforms, deform, deformation_jacobian
from bags_ns.rig.motion import (
    TRACKING_DAMPING,
    BoneMotion,
    FixedMotion,
    RootMotion,
    bone_transforms,
)
from bags_ns.rig.skeleton import Skeleton, build_tree, topological_order
from bags_ns.rig.skinning import SkinningField
from bags_ns.rig.transforms import (
    nearest_rotation,
    quat_from_rotation,
    quat_to_rotation,
    rigid,
    rigid_about,
    rigid_inverse,
    so3_exp,
    so3_log,
    transform_points,
    turned,
)

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_rig(num_bones: int = 5, num_points: int = 40, dtype: torch.dtype = DOUBLE):
    """Bones in general position, a skinning field with a residual that is not zero, points, and bone transforms."""
    g = generator()
    torch.manual_seed(0)  # of the layers' own weights
    bones, skinning = Bones(num_bones).to(dtype), SkinningField(num_bones, num_hidden=7).to(dtype)
    with torch.no_grad():
        bones.quats.copy_(torch.randn(num_bones, 4, generator=g))
        bones.log_scales.add_(0.3 * torch.randn(num_bones, 3, generator=g))
        skinning.output.weight.copy_(0.5 * torch.randn(num_bones, 7, generator=g))
    points = 0.3 * torch.randn(num_points, 3, generator=g, dtype=dtype)
    twists = 0.4 * torch.randn(num_bones, 6, generator=g, dtype=dtype)
    return bones, skinning, points, bone_transforms(twists, bones.centers)


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-4, 1e-2, 1.0, 3.1])
def test_exp_and_log_are_inverse_and_exp_is_a_rotation(scale):
    vectors = torch.nn.functional.normalize(torch.randn(20, 3, generator=generator(), dtype=DOUBLE), dim=-1) * scale
    rotations = so3_exp(vectors)
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3, dtype=DOUBLE).expand(20, 3, 3), atol=1e-9)
    assert torch.allclose(torch.det(rotations), torch.ones(20, dtype=DOUBLE), atol=1e-9)
    assert torch.allclose(so3_log(rotations), vectors, atol=1e-7)
    quats = 3 * torch.randn(len(vectors), 4, generator=generator(1), dtype=vectors.dtype)
    assert torch.allclose(quat_to_rotation(turned(quats, vectors)), rotations @ quat_to_rotation(quats), atol=1e-7)


def test_exp_has_the_right_gradient_at_and_near_the_identity():
    for scale in (0.0, 1e-5, 0.5):
        vectors = (scale * torch.randn(3, 3, generator=generator(), dtype=DOUBLE)).requires_grad_()
        assert torch.autograd.gradcheck(so3_exp, (vectors,), atol=1e-6)


def test_quaternions_and_rotations_convert_both_ways():
    quats = torch.nn.functional.normalize(torch.randn(50, 4, generator=generator(), dtype=DOUBLE), dim=-1)
    rotations = quat_to_rotation(quats)
    back = quat_from_rotation(rotations)
    assert torch.allclose(back * back[:, :1].sign(), quats * quats[:, :1].sign(), atol=1e-9)


def test_rigid_transforms_compose_invert_and_turn_about_their_pivot():
    g = generator()
    rotations, shifts, pivots = (
        so3_exp(torch.randn(6, 3, generator=g, dtype=DOUBLE)),
        torch.randn(6, 3, generator=g, dtype=DOUBLE),
        torch.randn(6, 3, generator=g, dtype=DOUBLE),
    )
    transforms = rigid(rotations, shifts)
    assert torch.allclose(
        transforms @ rigid_inverse(transforms), torch.eye(4, dtype=DOUBLE).expand(6, 4, 4), atol=1e-12
    )
    about = rigid_about(rotations, torch.zeros_like(shifts), pivots)
    assert torch.allclose(transform_points(about, pivots[:, None])[:, 0], pivots, atol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(DOUBLE, 1e-10), (torch.float32, 2e-5)])
def test_nearest_rotation_is_that_of_the_svd_even_with_negative_determinant(dtype, tolerance):
    matrices = torch.randn(2000, 3, 3, generator=generator(), dtype=DOUBLE)
    u, s, vt = torch.linalg.svd(matrices)
    flip = torch.ones_like(s)
    flip[:, 2] = torch.det(u @ vt).sign()
    gap = s[:, 1] + flip[:, 2] * s[:, 2]  # zero: two rotations are equally near
    expected = u @ (flip[..., None] * vt)
    well = gap > 0.05
    found = nearest_rotation(matrices.to(dtype)).to(DOUBLE)
    assert torch.det(matrices[well]).min() < -0.1
    assert ((found - expected).abs().amax((1, 2)) * gap)[well].max() < tolerance * 5
    assert torch.isfinite(nearest_rotation(torch.zeros(1, 3, 3))).all()


def test_saturating_costs_the_square_of_little_and_no_more_than_the_scale_of_much():
    squares = torch.tensor([1e-6, 1e6], dtype=DOUBLE, requires_grad=True)
    little, much = (saturating(value, 0.1) for value in squares)
    assert torch.allclose(little, squares[0], rtol=2e-4) and torch.allclose(much, torch.tensor(0.01, dtype=DOUBLE))
    pull = torch.autograd.grad(little + much, squares)[0]
    assert pull[0] > 0.99 and pull[1] < 1e-12, "real travel is free"


def test_rigidity_equals_the_singular_value_form_and_has_its_gradient():
    jacobians = torch.eye(3, dtype=DOUBLE) + 0.3 * torch.randn(30, 3, 3, generator=generator(), dtype=DOUBLE)
    jacobians.requires_grad_()
    by_svd = (torch.linalg.svdvals(jacobians) - 1).square().sum(-1).mean()
    ours = rigidity(jacobians)
    assert torch.allclose(ours, by_svd, atol=1e-10)
    for a, b in zip(torch.autograd.grad(ours, jacobians), torch.autograd.grad(by_svd, jacobians), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_rigidity_is_free_for_rotations_and_costs_for_stretches_and_reflections():
    rotations = so3_exp(torch.randn(10, 3, generator=generator(), dtype=DOUBLE))
    stretch = torch.diag(torch.tensor([1.5, 1.0, 1.0], dtype=DOUBLE))
    mirror = torch.diag(torch.tensor([-1.0, 1.1, 1.2], dtype=DOUBLE))
    assert rigidity(rotations) < 1e-20
    assert torch.allclose(rigidity(rotations @ stretch), torch.tensor(0.25, dtype=DOUBLE))
    assert rigidity(rotations @ mirror) > 1.0


def test_mahalanobis_agrees_with_its_definition():
    bones, _, points, _ = random_rig()
    offsets = points[:, None] - bones.centers
    expected = torch.einsum("nbi,bij,nbj->nb", offsets, bones.precisions(), offsets)
    assert torch.allclose(squared_mahalanobis(points, bones.centers, bones.precisions()), expected, atol=1e-9)


def test_skinning_weights_sum_to_one_and_the_residual_is_zero_at_the_start():
    bones, skinning, points, _ = random_rig()
    assert torch.allclose(skinning(points, bones).sum(1), torch.ones(len(points), dtype=DOUBLE))
    fresh = SkinningField(len(bones)).to(DOUBLE)
    distances = squared_mahalanobis(points, bones.centers, bones.precisions())
    assert torch.allclose(fresh(points, bones), torch.softmax(-0.5 * distances, dim=-1))


def test_closed_form_jacobian_is_that_of_autograd():
    bones, skinning, points, transforms = random_rig()

    def deform(x):
        return apply_transforms(blend_transforms(skinning(x, bones), transforms), x)

    expected = torch.stack([torch.autograd.functional.jacobian(deform, p[None])[0, :, 0] for p in points])
    assert torch.allclose(
        deformation_jacobian(points, skinning(points, bones), skinning, bones, transforms), expected, atol=1e-10
    )


def test_rigidity_of_the_deformation_passes_gradcheck():
    bones, skinning, points, _ = random_rig(num_bones=3, num_points=6)
    twists = (0.4 * torch.randn(3, 6, generator=generator(1), dtype=DOUBLE)).requires_grad_()

    def cost(twists, centers, weight):
        bones.centers.data, skinning.output.weight.data = centers, weight
        moved = bone_transforms(twists, centers)
        return rigidity(deformation_jacobian(points, skinning(points, bones), skinning, bones, moved))

    cost_of_twists = lambda t: cost(t, bones.centers.data, skinning.output.weight.data)  # noqa: E731
    assert torch.autograd.gradcheck(cost_of_twists, (twists,), atol=1e-6)


def factors_of(points, seed=3):
    g = generator(seed)
    rotations = so3_exp(torch.randn(len(points), 3, generator=g, dtype=points.dtype))
    return rotations * torch.rand(len(points), 1, 3, generator=g, dtype=points.dtype)


def test_identity_pose_leaves_the_gaussians_unchanged():
    bones, skinning, points, _ = random_rig()
    factors = factors_of(points)
    means, covars = deform(
        points, factors, skinning(points, bones), torch.eye(4, dtype=DOUBLE).expand(len(bones), 4, 4)
    )
    assert torch.allclose(means, points) and torch.allclose(covars, factors @ factors.mT)


def test_one_rigid_motion_of_all_bones_moves_everything_rigidly_and_costs_nothing():
    bones, skinning, points, _ = random_rig()
    factors = factors_of(points)
    motion = rigid(so3_exp(torch.tensor([0.3, -1.2, 0.8], dtype=DOUBLE)), torch.tensor([0.1, 2.0, -0.4], dtype=DOUBLE))
    motions = motion.expand(len(bones), 4, 4)
    weights = skinning(points, bones)
    means, covars = deform(points, factors, weights, motions)
    rotation = motion[:3, :3]
    assert torch.allclose(means, transform_points(motion, points), atol=1e-12)
    assert torch.allclose(covars, rotation @ factors @ factors.mT @ rotation.T, atol=1e-12)
    assert rigidity(deformation_jacobian(points, weights, skinning, bones, motions)) < 1e-20


def test_several_poses_at_once_are_those_one_by_one():
    bones, skinning, points, transforms = random_rig()
    weights, factors = skinning(points, bones), factors_of(points)
    poses = torch.stack([transforms, rigid_inverse(transforms)])
    together = deform(points, factors, weights, poses)
    for index, pose in enumerate(poses):
        for one, all_ in zip(deform(points, factors, weights, pose), together, strict=True):
            assert torch.allclose(one, all_[index])


def test_deformation_passes_gradcheck():
    bones, skinning, points, transforms = random_rig(num_bones=3, num_points=4)
    poses = torch.stack([transforms, rigid_inverse(transforms)])
    inputs = (points, factors_of(points), skinning(points, bones), poses)
    assert torch.autograd.gradcheck(deform, tuple(value.detach().requires_grad_() for value in inputs))


def test_bones_that_move_apart_cost_rigidity():
    bones, skinning, points, transforms = random_rig()
    assert rigidity(deformation_jacobian(points, skinning(points, bones), skinning, bones, transforms)) > 1e-3


def moving_rig(num_bones=6, num_frames=9, canonical_index=4, period=None):
    knots = torch.linspace(0, 1, num_frames)
    motion = BoneMotion(num_bones, knots, float(knots[canonical_index]))
    root = RootMotion(knots, float(knots[canonical_index]))
    with torch.no_grad():
        motion.repeat_every(period)
        root.repeat_every(period)
        motion.table.copy_(torch.randn(motion.table.shape, generator=generator()))
        motion.stride.copy_(torch.randn(motion.stride.shape, generator=generator(5)))
        motion.head.weight.copy_(0.1 * torch.randn(motion.head.weight.shape, generator=generator(1)))
        root.table.copy_(torch.randn(root.table.shape, generator=generator(2)))
        root.stride.copy_(torch.randn(root.stride.shape, generator=generator(6)))
    return motion, root, knots


def test_motion_starts_at_the_identity():
    times = torch.linspace(0, 1, 7)
    assert BoneMotion(4, torch.linspace(0, 1, 5), 0.5)(times).abs().max() == 0
    assert torch.equal(RootMotion(torch.linspace(0, 1, 5), 0.5)(times), torch.eye(4).expand(7, 4, 4))


def test_given_turns_are_exact_between_frames_and_vanish_at_the_canonical_time():
    root, axis = RootMotion(torch.linspace(0, 1, 5), 0.5), torch.tensor([0.6, 0.0, 0.8])
    root.start_turns(0.3 + 2 * root.knots, axis)
    times = torch.tensor([0.0, 0.1, 0.5, 0.93])
    expected = so3_exp(2 * (times - 0.5)[:, None] * axis)
    assert torch.allclose(root(times)[:, :3, :3], expected, atol=1e-6)
    assert torch.equal(root(times)[2], torch.eye(4)) and not root.change(times).any()
    root.continue_frame(2, 3, 4)  # tracking goes on from the learned change alone
    assert torch.allclose(root(times)[:, :3, :3], expected, atol=1e-6)


@pytest.mark.parametrize("period", [None, 0.3])
def test_gauge_is_fixed_at_the_canonical_time_and_over_the_bones(period):
    motion, root, knots = moving_rig(period=period)
    t0 = motion.canonical_time[None]
    assert motion(t0).abs().max() == 0 and torch.equal(root(t0)[0], torch.eye(4))
    assert motion(knots).mean(dim=1).abs().max() < 1e-6
    assert motion(knots).abs().max() > 0.5


@pytest.mark.parametrize("period", [None, 0.3])
@torch.no_grad()
def test_fixed_motion_is_that_of_bones_and_root_and_exact_at_the_canonical_time(period):
    motion, root, knots = moving_rig(period=period)
    root.path.normal_(generator=generator(3))
    root.start_turns(0.3 + 2 * knots, torch.tensor([0.6, 0.0, 0.8]))
    centers = torch.randn(6, 3, generator=generator(4))
    fixed = FixedMotion(motion, root, centers)
    for time in torch.tensor([-0.1, 0.0, 0.2, 0.31, 0.5, 0.93, 1.0])[:, None]:
        transforms, place = fixed(time)
        assert torch.allclose(transforms, bone_transforms(motion(time)[0], centers), atol=1e-5)
        assert torch.allclose(place, root(time)[0], atol=2e-6)
    assert torch.equal(fixed(motion.canonical_time[None])[0], torch.eye(4).expand(6, 4, 4))


def test_the_canonical_pose_learns_by_its_own_frame_and_what_it_learns_is_settled_in_the_shape():
    motion, _, knots = moving_rig()
    pinned = motion(knots)
    (gradient,) = torch.autograd.grad((pinned[[0]] * torch.randn(6, 6, generator=generator(3))).sum(), motion.table)
    assert torch.nonzero(gradient.abs().amax((1, 2))).flatten().tolist() == [0, 4]  # until then the others move it
    motion.canonical_learns = True
    assert torch.allclose(motion(knots), pinned, atol=1e-6)
    for frames in ([4], [0, 8]):  # the canonical one, and two others
        twists = motion(knots[frames])
        (gradient,) = torch.autograd.grad((twists * torch.randn(6, 6, generator=generator(3))).sum(), motion.table)
        assert torch.nonzero(gradient.abs().amax((1, 2))).flatten().tolist() == frames
    with torch.no_grad():
        motion.settle()
        before, step = motion(knots), 0.1 * torch.randn(6, 6, generator=generator(4))
        motion.table[4] += step
        change = motion.settle()
        assert torch.allclose(change, step - step.mean(0), atol=1e-6)
        expected = before - change
        expected[4] = 0
        assert torch.allclose(motion(knots), expected, atol=1e-5)
        assert motion.settle().abs().max() < 1e-6


def test_table_is_interpolated_between_frames_and_an_entering_frame_continues_its_neighbours():
    motion, root, knots = moving_rig()
    with torch.no_grad():
        motion.head.weight.zero_()
    halfway = motion((0.5 * (knots[1] + knots[2]))[None])
    assert torch.allclose(halfway[0], motion(knots[1:3]).mean(dim=0), atol=1e-6)
    motion, root, knots = moving_rig()
    motion.continue_frame(3, 3, 2)
    root.continue_frame(3, 3, 2)
    both = motion(knots[2:4])
    assert torch.allclose(both[0], both[1], atol=1e-5)
    assert torch.allclose(root(knots[2:3]), root(knots[3:4]))
    motion.continue_frame(3, 2, 1)  # at rest between frames 3 and 2: still the same pose
    assert torch.allclose(motion(knots[1:2]), both[:1], atol=1e-5)
    motion.continue_frame(4, 3, 2)
    path = motion(knots[2:5])
    assert torch.allclose(path[0] - path[1], TRACKING_DAMPING * (path[1] - path[2]), atol=1e-5)


def test_an_entering_frame_can_go_on_as_the_animal_did_a_period_before_or_after_it():
    motion, _, knots = moving_rig()
    period = 2.5 * motion.mean_spacing
    for last, target, shift in ((3, 4, period), (1, 0, -period)):
        motion.repeat_frame(last, target, shift)
        then, now = motion(knots[[last, target]] - shift), motion(knots[[last, target]])
        assert torch.allclose(now[1] - now[0], then[1] - then[0], atol=1e-5)
    earlier = 0.3 * knots[0] + 0.7 * knots[1]
    motion.resume_frame(4, float(earlier))
    assert torch.allclose(motion(knots[4:5]), motion(earlier[None]), atol=1e-5), "or from any other time"


def test_bones_are_placed_inside_the_points_and_follow_their_shape():
    points = torch.randn(500, 3, generator=generator()) * torch.tensor([1.0, 0.2, 0.1])
    bones = Bones(6)
    bones.place(points)
    assert (bones.centers.abs() < points.abs().amax(dim=0)).all()
    assert bone_placement(bones.centers, points) < bone_placement(bones.centers + 0.5, points)
    assert torch.allclose(torch.det(quat_to_rotation(bones.quats)), torch.ones(6), atol=1e-5)


def test_tree_follows_co_motion_rather_than_distance():
    """Two feet side by side swing against each other: each must hang on its own leg, not on the other foot."""
    centers = torch.tensor([[0.0, 0, 0.5], [0.1, 0, 0.3], [-0.1, 0, 0.3], [0.05, 0, 0.0], [-0.05, 0, 0.0]])
    swing = 0.3 * torch.sin(torch.linspace(0, 2 * math.pi, 20))
    trajectories = centers.repeat(20, 1, 1)
    for bone, sign, reach in ((1, 1, 0.5), (2, -1, 0.5), (3, 1, 1.0), (4, -1, 1.0)):
        trajectories[:, bone, 1] += sign * reach * swing
    parents = build_tree(centers, trajectories)
    assert parents.tolist() == [-1, 0, 0, 1, 2]
    assert topological_order(parents.tolist())[0] == 0
    with pytest.raises(ValueError, match="not one tree"):
        topological_order([1, 0])


def test_moving_a_parent_carries_its_children():
    skeleton = Skeleton(3)
    skeleton.parents.copy_(torch.tensor([-1, 0, 1]))
    local = torch.eye(4).repeat(3, 1, 1)
    local[1] = rigid(so3_exp(torch.tensor([0.0, 0.0, 0.5])), torch.zeros(3))
    moved = skeleton.bones_to_canonical(local)
    assert torch.equal(moved[0], torch.eye(4)) and torch.equal(moved[2], moved[1])
    assert torch.allclose(moved[1], local[1])


def test_skeleton_survives_its_state_dict():
    skeleton, other = Skeleton(4), Skeleton(4)
    skeleton.rebuild(torch.randn(4, 3, generator=generator()), torch.randn(5, 4, 3, generator=generator(1)))
    skeleton.names[2] = "tail"
    other.load_state_dict(skeleton.state_dict())
    assert other.names == skeleton.names and torch.equal(other.parents, skeleton.parents)


def test_ssim_is_one_for_equal_images_and_agrees_with_the_library():
    from pytorch_msssim import ssim as reference

    a, b = torch.rand(40, 30, 3, generator=generator()), torch.rand(40, 30, 3, generator=generator(1))
    assert torch.allclose(ssim(a[None], a[None]), torch.tensor(1.0))
    expected = reference(a.permute(2, 0, 1)[None], b.permute(2, 0, 1)[None], data_range=1.0)
    assert torch.allclose(ssim(a[None], b[None]), expected, atol=1e-5)


def test_smoothness_is_free_for_constant_speed():
    speed = torch.arange(3.0)[:, None] * torch.tensor([1.0, -2.0])
    assert smoothness(speed) == 0 and smoothness(speed.square()) > 0
