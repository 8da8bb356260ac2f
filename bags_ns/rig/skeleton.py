"""The skeleton: a tree over the bones, which is what a person poses. Moving a parent carries its children."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

CO_MOTION_WEIGHT = 4.0
"""How much the change of a pair's distance over the clip counts against its distance: joined bones keep theirs."""


def build_tree(centers: Float[Tensor, "B 3"], trajectories: Float[Tensor, "T B 3"]) -> Int[Tensor, " B"]:
    """Parent of each bone (-1 for the root): a minimum spanning tree on distance and co-motion, hung up at its centre.

    Args:
        centers: bone centres in the canonical frame.
        trajectories: the centres over the clip, in the object frame.

    The cost of a pair is its canonical distance plus CO_MOTION_WEIGHT times the spread of its distance over time.
    The root is the bone of least total tree distance to the others, which lies in the trunk.
    """
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree, shortest_path

    over_time = torch.cdist(trajectories, trajectories)  # [T B B]
    cost = torch.cdist(centers, centers) + CO_MOTION_WEIGHT * over_time.std(dim=0, unbiased=False)
    tree = minimum_spanning_tree((cost + 1e-9).cpu().numpy())  # a zero would mean "no edge"
    root = int(np.argmin(shortest_path(tree, directed=False).sum(axis=1)))
    _, parents = breadth_first_order(tree, root, directed=False)
    parents[parents < 0] = -1  # scipy writes -9999
    return torch.from_numpy(parents.astype(np.int64)).to(centers.device)


def topological_order(parents: list[int]) -> list[int]:
    """Bones so ordered that each comes after its parent."""
    children: dict[int, list[int]] = {}
    for bone, parent in enumerate(parents):
        children.setdefault(parent, []).append(bone)
    order = list(children.get(-1, []))
    for bone in order:  # grows while it is walked
        order.extend(children.get(bone, []))
    if len(order) != len(parents):
        raise ValueError(f"parents {parents} are not one tree: {len(order)} of {len(parents)} bones hang on a root")
    return order


class Skeleton(nn.Module):
    """Tree, joints and their names, kept in the checkpoint. A bone hangs on its parent at its joint.

    Before `rebuild` every bone is a child of bone 0.
    """

    parents: Tensor
    joints: Tensor

    def __init__(self, num_bones: int) -> None:
        super().__init__()
        parents = torch.zeros(num_bones, dtype=torch.long)
        parents[0] = -1
        self.register_buffer("parents", parents)
        self.register_buffer("joints", torch.zeros(num_bones, 3))
        self.names = [f"bone_{bone:02d}" for bone in range(num_bones)]

    def get_extra_state(self) -> list[str]:
        """Joint names, for the state dict."""
        return self.names

    def set_extra_state(self, state: list[str]) -> None:
        """Takes the joint names back from a state dict."""
        self.names = list(state)

    @torch.no_grad()
    def rebuild(self, centers: Float[Tensor, "B 3"], trajectories: Float[Tensor, "T B 3"]) -> None:
        """Builds the tree anew; joints lie halfway between a bone and its parent, the root's at its own centre."""
        self.parents.copy_(build_tree(centers, trajectories))
        has_parent = self.parents >= 0
        partner = torch.where(has_parent, self.parents, torch.arange(len(self.parents), device=centers.device))
        self.joints.copy_(0.5 * (centers + centers[partner]))

    def bones_to_canonical(self, T_parent_child: Float[Tensor, "*K B 4 4"]) -> Float[Tensor, "*K B 4 4"]:
        """T_object_canonical of every bone from local changes, each applied in the canonical frame before its parent's.

        A local change is a rigid transform of canonical space (for a rotation: about the bone's joint); a child is moved
        by its own change first and then by all of its ancestors'.
        """
        result = list(T_parent_child.unbind(-3))
        parents = self.parents.tolist()  # one wait for the device instead of one a bone
        for bone in topological_order(parents):
            parent = parents[bone]
            if parent >= 0:
                result[bone] = result[parent] @ result[bone]
        return torch.stack(result, dim=-3)
