"""The rigidity loss of the deformation as a module of its own, which training replays as a CUDA graph."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bags_ns import losses
from bags_ns.rig.bones import Bones
from bags_ns.rig.deformation import deformation_jacobian
from bags_ns.rig.skinning import SkinningField


class DeformationRigidity(nn.Module):
    """How far the bones' deformation is from rigid at points of canonical space."""

    def __init__(self, skinning: SkinningField, bones: Bones) -> None:
        super().__init__()
        self.skinning, self.bones = skinning, bones

    def forward(self, points: Float[Tensor, "S 3"], T_object_canonical: Float[Tensor, "B 4 4"]) -> Float[Tensor, ""]:
        """`losses.rigidity` of the deformation's Jacobians at the points."""
        weights = self.skinning(points, self.bones)
        return losses.rigidity(deformation_jacobian(points, weights, self.skinning, self.bones, T_object_canonical))
