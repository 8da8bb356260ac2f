"""A rigged animal as one GLB: skeleton, motions, a skinned mesh that every program shows, and the Gaussians if wanted.

Gaussians are stored as KHR_gaussian_splatting has it (ratified in 2026: linear scales, opacities in [0, 1], quaternions
xyzw, harmonics of degree 0), on a POINTS primitive that is skinned like the mesh. Readers that know splats but no skins
show them in the canonical pose, readers that know no splats as coloured points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bags_ns.animation.gltf_document import GltfDocument
from bags_ns.animation.gltf_rig import RigNodes, add_animation, add_rig
from bags_ns.animation.influences import fitted_weights, influence_attributes
from bags_ns.animation.joint_rotations import SampledMotion
from bags_ns.animation.proxy_mesh import Mesh, proxy_mesh
from bags_ns.animation.splats import Splats
from bags_ns.rig.skeleton import Skeleton

SPLATTING = "KHR_gaussian_splatting"
UNLIT = "KHR_materials_unlit"


@dataclass(frozen=True)
class RiggedAnimal:
    """Everything that is needed to move an animal elsewhere; canonical."""

    splats: Splats
    """Its Gaussians."""
    weights: Float[Tensor, "N B"]
    """Their skinning weights."""
    skinning: Callable[[Tensor], Tensor]
    """Skinning weights [P B] of any canonical points [P 3]."""
    skeleton: Skeleton
    """Tree, joints and names."""


def linear_rgb(colors: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
    """sRGB as linear light, which glTF wants of vertex colours."""
    return torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def _floats(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().astype(np.float32)


def add_mesh(
    document: GltfDocument, nodes: RigNodes, mesh: Mesh, weights: Float[Tensor, "P B"], influences: int
) -> int:
    """Adds the skinned proxy with a material that is its vertex colours; returns its node."""
    document.extensions.add(UNLIT)
    material = document.add(
        "materials",
        name="fur",
        pbrMetallicRoughness={"metallicFactor": 0.0, "roughnessFactor": 1.0},
        extensions={UNLIT: {}},
    )
    dtype = np.uint16 if len(mesh.vertices) < 65_535 else np.uint32
    attributes = {
        "POSITION": document.array(_floats(mesh.vertices), "vertices", bounds=True),
        "COLOR_0": document.array(_floats(linear_rgb(mesh.colors)), "vertices"),
        **influence_attributes(document, weights, influences),
    }
    indices = document.array(mesh.faces.cpu().numpy().astype(dtype).reshape(-1), "indices")
    primitive = {"attributes": attributes, "indices": indices, "material": material}
    return document.add("nodes", name="mesh", mesh=document.add("meshes", name="mesh", primitives=[primitive]), skin=nodes.skin)  # fmt: skip


def add_splats(
    document: GltfDocument, nodes: RigNodes, splats: Splats, weights: Float[Tensor, "N B"], influences: int
) -> int:
    """Adds the skinned Gaussians; returns their node."""
    document.extensions.add(SPLATTING)
    fallback = torch.cat([splats.colors, splats.opacities[:, None]], dim=1).clamp(0, 1)
    quats = torch.nn.functional.normalize(splats.quats, dim=1)[:, [1, 2, 3, 0]]
    attributes = {
        "POSITION": document.array(_floats(splats.means), "vertices", bounds=True),
        "COLOR_0": document.array(_floats(fallback), "vertices"),
        f"{SPLATTING}:ROTATION": document.array(_floats(quats), "vertices"),
        f"{SPLATTING}:SCALE": document.array(_floats(splats.scales), "vertices"),
        f"{SPLATTING}:OPACITY": document.array(_floats(splats.opacities.clamp(0, 1)), "vertices"),
        f"{SPLATTING}:SH_DEGREE_0_COEF_0": document.array(_floats(splats.harmonics()), "vertices"),
        **influence_attributes(document, weights, influences),
    }
    look = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    primitive = {"attributes": attributes, "mode": 0, "extensions": {SPLATTING: look}}
    return document.add("nodes", name="splats", mesh=document.add("meshes", name="splats", primitives=[primitive]), skin=nodes.skin)  # fmt: skip


@torch.no_grad()
def gltf_document(
    animal: RiggedAnimal,
    motions: Mapping[str, SampledMotion],
    *,
    with_splats: bool = False,
    influences: int = 4,
    name: str = "animal",
) -> GltfDocument:
    """The whole document.

    Args:
        animal: canonical Gaussians and their rig.
        motions: by the names of their animations.
        with_splats: whether the Gaussians come along.
        influences: bones that move a vertex at most; programs read 4 of them, some 8.
        name: of the animal.
    """
    document = GltfDocument()
    nodes = add_rig(document, animal.skeleton, name)
    for title, motion in motions.items():
        add_animation(document, nodes, animal.skeleton, motion, title)
    mesh = proxy_mesh(animal.splats.gaussians())
    vertices = mesh.vertices.to(animal.weights.device)
    poses = [motion.T_object_canonical for motion in motions.values()]
    weights = animal.skinning(vertices)
    if poses:
        weights = fitted_weights(weights, vertices, torch.cat(poses), influences)
    scene = [nodes.top, add_mesh(document, nodes, mesh, weights, influences)]
    if with_splats:
        scene.append(add_splats(document, nodes, animal.splats, animal.weights, influences))
    document.add("scenes", name=name, nodes=scene)
    return document


def write_gltf(
    path: Path,
    animal: RiggedAnimal,
    motions: Mapping[str, SampledMotion],
    *,
    with_splats: bool = False,
    influences: int = 4,
) -> None:
    """Writes the animal as a GLB, whole or not at all; see `gltf_document`."""
    if influences < 1:
        raise ValueError(f"a vertex needs at least one bone, got influences {influences}")
    gltf_document(animal, motions, with_splats=with_splats, influences=influences, name=path.stem).write_glb(path)
