"""A rig in glTF: joints as nodes, bound in the canonical pose, and motion as keyframes of their places and turns.

Linear blend skinning in glTF moves a vertex by sum_b w_b world(node_b) inverse_bind_b. A joint's node is bound at the
joint, in canonical axes; so with world(node_b) = Y T_world_object T_object_canonical[b] bind_b it is ours exactly, Y
being the turn from z up to glTF's y up. Nodes hang together as the skeleton does, each with the rigid transform between
its parent's world and its own: bones that part from their parents keep doing so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animation.gltf_document import GltfDocument
from bags_ns.animation.joint_rotations import SampledMotion
from bags_ns.rig.skeleton import Skeleton
from bags_ns.rig.transforms import quat_from_rotation, rigid, rigid_inverse

Y_UP = [-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]
"""Quaternion xyzw that turns z up into y up: by -90 degrees about x."""


@dataclass(frozen=True)
class RigNodes:
    """Indices of what a rig is made of in a document."""

    top: int
    """The node that turns z up into y up; parent of `root`."""
    root: int
    """The node of the root transform; parent of the skeleton's root."""
    joints: list[int]
    """Node of each bone."""
    skin: int
    """With the joints in the order of the bones."""


def bind_transforms(skeleton: Skeleton) -> Float[Tensor, "B 4 4"]:
    """T_canonical_joint: where the joints' nodes are in the canonical pose."""
    joints = skeleton.joints.double()
    return rigid(torch.eye(3).to(joints).expand(len(joints), 3, 3), joints)


def add_rig(document: GltfDocument, skeleton: Skeleton, name: str) -> RigNodes:
    """Adds nodes and skin, standing in the canonical pose."""
    parents = skeleton.parents.tolist()
    bind = bind_transforms(skeleton).cpu()
    first = len(document.objects.get("nodes", [])) + 2
    top = document.add("nodes", name=name, rotation=Y_UP, children=[first - 1])
    root = document.add("nodes", name="root", children=[first + parents.index(-1)])
    for bone, parent in enumerate(parents):
        offset = bind[bone, :3, 3] - (bind[parent, :3, 3] if parent >= 0 else 0)
        children = [first + child for child, above in enumerate(parents) if above == bone]
        node = {"name": skeleton.names[bone], "translation": offset.tolist()}
        document.add("nodes", **node, **({"children": children} if children else {}))
    joints = list(range(first, first + len(parents)))
    inverse = document.array(rigid_inverse(bind).numpy().astype(np.float32))
    skin = document.add(
        "skins", name=name, joints=joints, skeleton=joints[parents.index(-1)], inverseBindMatrices=inverse
    )
    return RigNodes(top, root, joints, skin)


def node_transforms(T_object_canonical: Float[Tensor, "K B 4 4"], skeleton: Skeleton) -> Float[Tensor, "K B 4 4"]:
    """T_parent_node of each joint's node; the skeleton's root hangs on the object frame. In double precision."""
    worlds = T_object_canonical.double() @ bind_transforms(skeleton)
    has_parent = (skeleton.parents >= 0)[:, None, None]
    above = torch.where(has_parent, worlds[:, skeleton.parents.clamp_min(0)], torch.eye(4).to(worlds))
    return rigid_inverse(above) @ worlds


def continuous_quats(rotations: Float[Tensor, "K 3 3"]) -> np.ndarray:
    """Quaternions xyzw [K 4], each on the same side as the one before: a player that interpolates takes the short way."""
    quats = quat_from_rotation(rotations)
    signs = (quats[1:] * quats[:-1]).sum(-1).sign()
    signs = torch.where(signs == 0, torch.ones_like(signs), signs).cumprod(dim=0)
    quats = torch.cat([quats[:1], quats[1:] * signs[:, None]])
    return quats[:, [1, 2, 3, 0]].cpu().numpy().astype(np.float32)


def add_animation(document: GltfDocument, nodes: RigNodes, skeleton: Skeleton, motion: SampledMotion, name: str) -> int:
    """Adds a motion: two channels, place and turn, for the root and for every joint; exact at its times."""
    times = document.array(motion.times.cpu().numpy().astype(np.float32), bounds=True)
    local = node_transforms(motion.T_object_canonical, skeleton)
    moves = [(nodes.root, motion.T_world_object.double())]
    moves += [(node, local[:, bone]) for bone, node in enumerate(nodes.joints)]
    samplers, channels = [], []
    for node, transforms in moves:
        translations = transforms[:, :3, 3].cpu().numpy().astype(np.float32)
        for path, values in (("translation", translations), ("rotation", continuous_quats(transforms[:, :3, :3]))):
            channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
            samplers.append({"input": times, "output": document.array(values), "interpolation": "LINEAR"})
    return document.add("animations", name=name, samplers=samplers, channels=channels)
