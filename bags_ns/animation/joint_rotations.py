"""Between a pose's bone transforms and local changes over the skeleton's tree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animation.interpolation import slerp
from bags_ns.rig.motion import Pose
from bags_ns.rig.skeleton import Skeleton, topological_order
from bags_ns.rig.transforms import nearest_rotation, rigid, rigid_about, transform_points


@dataclass(frozen=True)
class SampledMotion:
    """K poses of one rig, one after the other."""

    times: Float[Tensor, " K"]
    """Ascending, in seconds."""
    T_object_canonical: Float[Tensor, "K B 4 4"]
    """Bone transforms."""
    T_world_object: Float[Tensor, "K 4 4"]
    """Root transforms."""

    def __len__(self) -> int:
        return len(self.times)

    def pose(self, index: int) -> Pose:
        """One of the poses."""
        return Pose(self.T_object_canonical[index], self.T_world_object[index])


def bones_from_rotations(rotations: Float[Tensor, "*K B 3 3"], skeleton: Skeleton) -> Float[Tensor, "*K B 4 4"]:
    """T_object_canonical of bones that turn by local `rotations` about their joints."""
    joints = skeleton.joints.expand(rotations.shape[:-1])
    return skeleton.bones_to_canonical(rigid_about(rotations.to(joints), torch.zeros_like(joints), joints))


def pose_from_rotations(
    rotations: Float[Tensor, "B 3 3"], skeleton: Skeleton, T_world_object: Float[Tensor, "4 4"] | None = None
) -> Pose:
    """The pose whose bones turn by local `rotations` about their joints; the root stays unless it is given."""
    root = torch.eye(4) if T_world_object is None else T_world_object
    return Pose(bones_from_rotations(rotations, skeleton), root.to(skeleton.joints))


@torch.no_grad()
def fit_rotations(
    T_object_canonical: Float[Tensor, "K B 4 4"],
    skeleton: Skeleton,
    centers: Float[Tensor, "B 3"],
    covars: Float[Tensor, "B 3 3"],
) -> tuple[Float[Tensor, "K B 3 3"], Float[Tensor, "K 3"]]:
    """Local rotations, and a shift of the whole animal in the object frame, that follow given bone transforms closest.

    From the root outwards each bone turns so that its ellipsoid, and its children's joints as these carry them, come as
    near as they can (in squares) to where the transforms put them. What is lost is what joints cannot do: bones that
    part from their parents. Exact for motion that is made of rotations about joints and a shift.

    Args:
        T_object_canonical: of K poses.
        skeleton: tree and joints.
        centers: of the bones, canonical.
        covars: of the bones' ellipsoids.
    """
    targets = T_object_canonical.double()
    centers, covars, joints = centers.double(), covars.double(), skeleton.joints.double()
    moved, moved_joints = _each_moved(targets, centers), _each_moved(targets, joints)
    spread = targets[..., :3, :3] @ covars
    parents = skeleton.parents.tolist()
    reached: dict[int, Tensor] = {}
    rotations = torch.empty_like(targets[..., :3, :3])
    for bone in topological_order(parents):
        above = targets[:, bone] if parents[bone] < 0 else reached[parents[bone]]
        pivot = transform_points(above, joints[bone].expand(len(targets), 1, 3))[:, 0]
        children = [child for child, parent in enumerate(parents) if parent == bone]
        followers = torch.cat([centers[bone, None], joints[children]])
        aims = torch.cat([moved[:, bone, None], moved_joints[:, children]], dim=1)
        correlation = (aims - pivot[:, None]).transpose(1, 2) @ (followers - joints[bone])
        turn = nearest_rotation(spread[:, bone] + correlation, iterations=40)
        rotations[:, bone] = turn if parents[bone] < 0 else above[:, :3, :3].transpose(1, 2) @ turn
        reached[bone] = rigid(turn, pivot - (turn @ joints[bone]))
    fitted = torch.stack([reached[bone] for bone in range(len(parents))], dim=1)
    root = parents.index(-1)
    shift = fitted[:, root, :3, 3] - joints[root] + (fitted[:, root, :3, :3] @ joints[root])
    residual = moved - _each_moved(fitted, centers)
    return rotations.to(T_object_canonical), (shift + residual.mean(dim=1)).to(T_object_canonical)


def _each_moved(transforms: Float[Tensor, "K B 4 4"], points: Float[Tensor, "B 3"]) -> Float[Tensor, "K B 3"]:
    """One point a bone, moved by its bone."""
    return (transforms[..., :3, :3] @ points[..., None])[..., 0] + transforms[..., :3, 3]


def shifted_root(T_world_object: Float[Tensor, "*K 4 4"], shift: Float[Tensor, "*K 3"]) -> Float[Tensor, "*K 4 4"]:
    """Root transforms with a shift of the animal in the object frame before them."""
    eye = torch.eye(3, dtype=shift.dtype, device=shift.device).expand(*shift.shape[:-1], 3, 3)
    return T_world_object @ rigid(eye, shift)


def blend_poses(pose: Pose, other: Pose, share: float, joints: Float[Tensor, "B 3"]) -> Pose:
    """A pose `share` (0 to 1) of the way to `other`: turns by slerp, joints on straight lines; exact at both ends."""
    root = torch.zeros_like(joints[:1])
    bones = _blend(pose.T_object_canonical, other.T_object_canonical, share, joints)
    return Pose(bones, _blend(pose.T_world_object[None], other.T_world_object[None], share, root)[0])


def _blend(
    start: Float[Tensor, "B 4 4"], end: Float[Tensor, "B 4 4"], share: float, pivots: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    turned = slerp(start[:, :3, :3], end[:, :3, :3], share)
    places = _each_moved(torch.stack([start, end]), pivots)
    return rigid(turned, torch.lerp(places[0], places[1], share) - (turned @ pivots[..., None])[..., 0])
