"""Rigidity and its gradients in closed form against automatic differentiation: three backward passes and batched SVDs.

    python benchmarks/rigidity.py

Both take the same points, skinning network and bone transforms, and give gradients by all of them. They are checked for
equal values and gradients first. `closed_form_graphed` is the closed form as training takes it: on CUDA its value and
gradients are replayed as one graph, on the CPU nothing is. `times_faster` is of that one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from made_animal import made_animal
from rich.console import Console
from timing import device_name, median_ms
from torch import Tensor

from bags_ns.files import write_json
from bags_ns.model import BagsModel
from bags_ns.rig.deformation import apply_transforms, blend_transforms
from bags_ns.rig.replay import PLAIN_CALLS
from bags_ns.rigidity import DeformationRigidity

BAR = 5.0
"""The closed form must be so many times faster on CUDA."""


@dataclass
class Rigidity:
    """Loss and gradients, both ways."""

    num_points: int | None = None
    """Points; 50,000 on CUDA and 5,000 on the CPU unless given."""
    num_bones: int = 24
    """Bones."""
    repeats: int = 20
    """Calls timed; the median counts."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, float | int | str]:
        """Milliseconds of each, with gradients and without, and how they differ."""
        torch.set_num_threads(1)
        on_cuda = torch.cuda.is_available()
        model = made_animal(self.num_points or (50_000 if on_cuda else 5_000), self.num_bones)
        with torch.no_grad():
            transforms = model.pose_at(0.3).T_object_canonical
        leaves = [model.means, transforms.requires_grad_(), *model.bones.parameters(), *model.skinning.parameters()]

        plain = DeformationRigidity(model.skinning, model.bones)

        def closed_form() -> Float[Tensor, ""]:
            return plain(model.means, transforms)

        def closed_form_graphed() -> Float[Tensor, ""]:
            return model.rigidity(model.means, transforms)

        def automatic() -> Float[Tensor, ""]:
            return rigidity_by_svd(jacobian_by_autograd(model, transforms))

        def with_gradients(loss: Callable[[], Float[Tensor, ""]]) -> Callable[[], tuple[Tensor, ...]]:
            return lambda: torch.autograd.grad(loss(), leaves)

        figures: dict[str, float | int | str] = {
            "device": device_name(),
            "points": model.num_points,
            "bones": self.num_bones,
        }
        figures["value"] = closed_form().item()
        for _ in range(PLAIN_CALLS):
            closed_form_graphed()
        figures["relative_difference"] = abs(automatic().item() / closed_form_graphed().item() - 1)
        gradients = zip(with_gradients(closed_form_graphed)(), with_gradients(automatic)(), strict=True)
        figures["gradients_relative_difference"] = max(float((a - b).norm() / b.norm()) for a, b in gradients)
        cases = {
            "closed_form": with_gradients(closed_form),
            "closed_form_graphed": with_gradients(closed_form_graphed),
            "automatic": with_gradients(automatic),
            "closed_form_forward": closed_form,
            "automatic_forward": automatic,
        }
        ms = median_ms(cases, self.repeats)
        figures |= {f"{name}_ms": value for name, value in ms.items()}
        figures["times_faster"] = ms["automatic"] / ms["closed_form_graphed"]
        return figures | {"bar": BAR if on_cuda else "stated"}


def jacobian_by_autograd(model: BagsModel, transforms: Float[Tensor, "B 4 4"]) -> Float[Tensor, "N 3 3"]:
    """J = dx'/dx at the means, a backward pass for each row, kept differentiable."""
    points = model.means * 1.0  # in the graph, so that gradients go on to the means
    moved = apply_transforms(blend_transforms(model.skinning(points, model.bones), transforms), points)
    rows = [torch.autograd.grad(moved[:, row].sum(), points, create_graph=True)[0] for row in range(3)]
    return torch.stack(rows, dim=1)


def rigidity_by_svd(jacobians: Float[Tensor, "N 3 3"]) -> Float[Tensor, ""]:
    """Mean of sum (sigma - 1)^2 over the singular values, the third with the determinant's sign."""
    values = torch.linalg.svdvals(jacobians)
    signs = torch.linalg.det(jacobians.detach()).sign()
    signed = torch.cat([values[:, :2], values[:, 2:] * signs[:, None]], dim=1)
    return (signed - 1).square().sum(-1).mean()


if __name__ == "__main__":
    benchmark = tyro.cli(Rigidity)
    result = benchmark.measure()
    Console().print(result)
    if benchmark.output:
        write_json(benchmark.output, result)
