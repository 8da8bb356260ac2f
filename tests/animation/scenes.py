"""Gaussians to export and to read back, and how alike two sets of them look."""

import numpy as np
import torch
from gltf_reader import Glb
from scipy.spatial.transform import Rotation

from bags_ns.cameras import intrinsics_from_fov, orbit_camera, viewmats_from_camera_to_worlds
from bags_ns.gaussians import Gaussians
from bags_ns.metrics import psnr
from bags_ns.rendering import render
from bags_ns.rig.transforms import quat_to_rotation


def blob(count: int, seed: int = 0) -> Gaussians:
    """A cloud of flat and long coloured Gaussians, about 1 wide."""
    g = torch.Generator().manual_seed(seed)
    rotations = quat_to_rotation(torch.randn(count, 4, generator=g))
    factors = rotations * (-4.5 + 0.7 * torch.randn(count, 1, 3, generator=g)).exp()
    means = 0.5 * torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    means = means * torch.rand(count, 1, generator=g) ** (1 / 3)
    colors, opacities = torch.rand(count, 3, generator=g), 0.05 + 0.94 * torch.rand(count, generator=g)
    return Gaussians(means, factors @ factors.mT, opacities, colors)


def read_gaussians(glb: Glb, animation: int | None, time: float) -> Gaussians:
    """Posed Gaussians as a reader makes them of the file."""
    attributes = glb.attributes("splats")
    moved, linear = glb.moved("splats", animation, time)
    axes = Rotation.from_quat(attributes["KHR_gaussian_splatting:ROTATION"]).as_matrix()
    factors = linear @ (axes * attributes["KHR_gaussian_splatting:SCALE"][:, None, :])
    colors = attributes["KHR_gaussian_splatting:SH_DEGREE_0_COEF_0"] * 0.2820947917738781 + 0.5
    arrays = [moved, factors @ factors.swapaxes(1, 2), attributes["KHR_gaussian_splatting:OPACITY"], colors]
    return Gaussians(*(torch.from_numpy(np.array(array, np.float32)) for array in arrays))


def picture(gaussians: Gaussians, azimuth: float = 0.7, size: int = 128) -> torch.Tensor:
    pose = orbit_camera(torch.tensor(azimuth), torch.tensor(0.2), torch.tensor(2.0))[None, :3]
    K = intrinsics_from_fov(40.0, size, size)[None]
    return render(gaussians, viewmats_from_camera_to_worlds(pose), K, size, size, background=torch.ones(3)).rgb[0]


def rendered_psnr(a: Gaussians, b: Gaussians) -> float:
    """Worst over three views, in dB."""
    return min(float(psnr(picture(a, azimuth), picture(b, azimuth))) for azimuth in (0.0, 2.0, 4.0))
