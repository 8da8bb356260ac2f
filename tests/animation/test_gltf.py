"""The GLB, read back by a reader of its own: it moves as our deformation does, and the Khronos validator finds no error."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from gltf_reader import Glb
from rigs import NUM_BONES, quadruped, random_rotations, walk
from scenes import read_gaussians, rendered_psnr

from bags_ns.animation.export_gltf import RiggedAnimal, linear_rgb, write_gltf
from bags_ns.animation.gltf_rig import node_transforms
from bags_ns.animation.influences import fitted_weights, largest_influences
from bags_ns.animation.joint_rotations import SampledMotion, pose_from_rotations
from bags_ns.animation.proxy_mesh import opacity_grid, proxy_mesh
from bags_ns.animation.splats import Splats
from bags_ns.gaussians import Gaussians
from bags_ns.rig.bones import Bones
from bags_ns.rig.deformation import apply_transforms, blend_transforms, deform
from bags_ns.rig.skinning import SkinningField
from bags_ns.rig.transforms import quat_from_rotation, quat_to_rotation, rigid

TIMES = [0.0, 0.25, 0.5, 1.0]


def made_up_animal() -> RiggedAnimal:
    """Gaussians filling the limbs of the made-up quadruped, skinned softly to its bones."""
    skeleton, centers = quadruped()
    g = torch.Generator().manual_seed(0)
    bones, skinning = Bones(NUM_BONES), SkinningField(NUM_BONES)
    with torch.no_grad():
        bones.centers.copy_(centers)
        bones.log_scales.fill_(float(np.log(0.08)))
    share = torch.rand(NUM_BONES, 150, 1, generator=g)
    partner = centers[skeleton.parents.clamp_min(0)]
    along = centers[:, None] * share + partner[:, None] * (1 - share)
    means = (along + 0.03 * torch.randn(NUM_BONES, 150, 3, generator=g)).flatten(0, 1)
    count = len(means)
    splats = Splats(
        means,
        quat_from_rotation(random_rotations(1, count)),
        0.01 + 0.015 * torch.rand(count, 3, generator=g),
        0.3 + 0.65 * torch.rand(count, generator=g),
        torch.rand(count, 3, generator=g),
    )
    weights = skinning(means, bones).detach()
    return RiggedAnimal(splats, weights, lambda points: skinning(points, bones).detach(), skeleton)


def walking_motion(skeleton) -> SampledMotion:
    """A walk in which bones also part from their parents, as trained ones do, and the root goes somewhere."""
    g = torch.Generator().manual_seed(1)
    bones = torch.stack([pose_from_rotations(walk(5 * t), skeleton).T_object_canonical for t in TIMES])
    bones[..., :3, 3] += 0.03 * torch.randn(len(TIMES), NUM_BONES, 3, generator=g)
    roots = rigid(random_rotations(2, len(TIMES), angle=0.4), torch.randn(len(TIMES), 3, generator=g))
    return SampledMotion(torch.tensor(TIMES), bones, roots)


@pytest.fixture(scope="module")
def animal():
    return made_up_animal()


@pytest.fixture(scope="module")
def motion(animal):
    return walking_motion(animal.skeleton)


@pytest.fixture(scope="module")
def files(animal, motion, tmp_path_factory):
    folder = tmp_path_factory.mktemp("glb")
    write_gltf(folder / "plain.glb", animal, {"video": motion})
    write_gltf(folder / "splatted.glb", animal, {"video": motion}, with_splats=True)
    write_gltf(folder / "full.glb", animal, {"video": motion}, with_splats=True, influences=NUM_BONES)
    write_gltf(folder / "still.glb", animal, {})
    return folder


def test_the_nodes_worlds_are_the_bones_transforms(animal, motion):
    local = node_transforms(motion.T_object_canonical, animal.skeleton)
    worlds: dict[int, torch.Tensor] = {}
    for bone in range(NUM_BONES):
        parent = int(animal.skeleton.parents[bone])
        worlds[bone] = local[:, bone] if parent < 0 else worlds[parent] @ local[:, bone]
    joints = animal.skeleton.joints.double()
    for bone, world in worlds.items():
        bound = motion.T_object_canonical[:, bone].double() @ rigid(torch.eye(3).double(), joints[bone])
        assert torch.allclose(world, bound, atol=1e-6)


@pytest.mark.parametrize("index", range(len(TIMES)))
def test_the_mesh_moves_as_our_own_deformation(files, animal, motion, index):
    glb = Glb(files / "plain.glb")
    vertices = torch.from_numpy(glb.attributes("mesh")["POSITION"].copy())
    blended = blend_transforms(animal.skinning(vertices), motion.pose(index).T_world_canonical)
    ours = apply_transforms(blended, vertices).numpy()
    theirs, _ = glb.moved("mesh", 0, TIMES[index])
    size = np.ptp(vertices.numpy(), axis=0).max()
    assert np.linalg.norm(theirs - ours, axis=1).max() < 0.01 * size


def our_gaussians(animal: RiggedAnimal, pose) -> Gaussians:
    splats = animal.splats
    factors = quat_to_rotation(splats.quats) * splats.scales[:, None, :]
    means, covars = deform(splats.means, factors, animal.weights, pose.T_world_canonical)
    return Gaussians(means, covars, splats.opacities, splats.colors)


@pytest.mark.parametrize("index", range(len(TIMES)))
def test_all_weights_reproduce_the_posed_gaussians(files, animal, motion, index):
    ours = our_gaussians(animal, motion.pose(index))
    theirs = read_gaussians(Glb(files / "full.glb"), 0, TIMES[index])
    for name in ("means", "covars", "opacities", "colors"):
        assert (getattr(theirs, name) - getattr(ours, name)).abs().max() < 1e-4, name


def test_four_weights_look_nearly_the_same(files, animal, motion):
    glb = Glb(files / "splatted.glb")
    assert "JOINTS_1" not in glb.attributes("splats")
    for index in range(len(TIMES)):
        pose = motion.pose(index)
        unrooted = type(pose)(pose.T_object_canonical, torch.eye(4))
        inverse = torch.linalg.inv(pose.T_world_object)
        theirs = read_gaussians(glb, 0, TIMES[index])
        back = Gaussians(
            theirs.means @ inverse[:3, :3].T + inverse[:3, 3],
            inverse[:3, :3] @ theirs.covars @ inverse[:3, :3].T,
            theirs.opacities,
            theirs.colors,
        )
        assert rendered_psnr(our_gaussians(animal, unrooted), back) > 35


def test_the_rest_pose_is_the_canonical_one(files, animal):
    for name in ("still", "plain"):
        glb = Glb(files / f"{name}.glb")
        moved, linear = glb.moved("mesh", None, 0.0)
        assert np.allclose(moved, glb.attributes("mesh")["POSITION"], atol=1e-6)
        assert np.allclose(linear, np.eye(3), atol=1e-6)
    assert "animations" not in Glb(files / "still.glb").json


def test_the_skeleton_is_a_tree_of_named_nodes(files, animal):
    glb = Glb(files / "plain.glb")
    skin = glb.json["skins"][0]
    names = [glb.json["nodes"][joint]["name"] for joint in skin["joints"]]
    assert names == animal.skeleton.names
    for bone, parent in enumerate(animal.skeleton.parents.tolist()):
        above = glb.node(names[parent]) if parent >= 0 else glb.node("root")
        assert skin["joints"][bone] in above["children"]
    assert len(glb.json["animations"][0]["channels"]) == 2 * (NUM_BONES + 1)


@pytest.fixture(scope="session")
def validator(tmp_path_factory):
    """The Khronos validator as a function from a file to its report."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("the Khronos validator runs on node and comes by npm: neither may be missing")
    folder = tmp_path_factory.mktemp("npm")
    installed = subprocess.run(
        ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "gltf-validator@2.0.0-dev.3.10"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"npm could not install gltf-validator: {installed.stderr.strip()[-200:]}")
    script = (
        "const v = require('gltf-validator'), fs = require('fs');"
        "v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])), {maxIssues: 0})"
        ".then(r => console.log(JSON.stringify(r.issues)));"
    )

    def validate(path):
        result = subprocess.run(["node", "-e", script, path], cwd=folder, capture_output=True, text=True, check=True)
        return json.loads(result.stdout)

    return validate


@pytest.mark.parametrize("name", ["plain", "still"])
def test_the_khronos_validator_has_nothing_to_say(files, validator, name):
    report = validator(files / f"{name}.glb")
    assert report["numErrors"] == report["numWarnings"] == 0, report["messages"]


@pytest.mark.parametrize("name", ["splatted", "full"])
def test_the_validator_objects_only_to_names_it_does_not_know_yet(files, validator, name):
    report = validator(files / f"{name}.glb")
    unlike = [m for m in report["messages"] if m["severity"] < 2 and "KHR_gaussian_splatting" not in json.dumps(m)]
    assert not unlike, unlike


def test_a_ball_becomes_a_closed_mesh_of_its_size():
    trimesh = pytest.importorskip("trimesh")
    g = torch.Generator().manual_seed(0)
    means = 0.4 * torch.nn.functional.normalize(torch.randn(4000, 3, generator=g), dim=1)
    means = means * torch.rand(4000, 1, generator=g) ** (1 / 3)
    colors = (means[:, :1] > 0).float() * torch.tensor([1.0, 0, 0]) + (means[:, :1] <= 0).float() * torch.tensor(
        [0, 0, 1.0]
    )
    speck = torch.tensor([[0.6, 0.0, 0.0]])
    ball = Gaussians(
        torch.cat([means, speck]),
        torch.eye(3).repeat(4001, 1, 1) * 0.03**2,
        torch.full((4001,), 0.8),
        torch.cat([colors, colors[:1]]),
    )
    mesh = proxy_mesh(ball, resolution=64, max_triangles=3000)
    shape = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert shape.is_watertight and 2000 < len(mesh.faces) <= 3000 and shape.volume > 0  # facing outwards
    assert 0.38 < mesh.vertices.norm(dim=1).min() and mesh.vertices.norm(dim=1).max() < 0.52  # and no speck
    assert (
        mesh.colors[mesh.vertices[:, 0] > 0.2, 0].mean() > 0.9
        and mesh.colors[mesh.vertices[:, 0] < -0.2, 2].mean() > 0.9
    )


def test_the_opacity_grid_is_the_sum_of_gaussians():
    g = torch.Generator().manual_seed(0)
    means, covars = 0.3 * torch.rand(20, 3, generator=g), torch.eye(3).repeat(20, 1, 1) * 0.04**2
    gaussians = Gaussians(means, covars, torch.rand(20, generator=g), torch.rand(20, 3, generator=g))
    low, cell = torch.full((3,), -0.1), 0.02
    grid = opacity_grid(gaussians, low, cell, (25, 25, 25))
    points = low + cell * torch.cartesian_prod(*[torch.arange(25)] * 3)
    squared = (torch.cdist(points, means) / (0.04**2 + 0.01**2) ** 0.5) ** 2
    expected = (gaussians.opacities * (-0.5 * squared).exp() * (squared < 9)).sum(1)
    assert (grid.flatten() - expected).abs().mean() < 1e-4


def test_influences_sum_to_one_and_leave_unused_places_empty():
    weights = torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04], [1.0, 0, 0, 0, 0]])
    bones, values = largest_influences(weights, 4)
    assert np.allclose(values.sum(1), 1) and bones[0].tolist() == [0, 1, 2, 3] and bones.dtype == np.uint8
    assert values[1].tolist() == [1, 0, 0, 0] and bones[1].tolist() == [0, 0, 0, 0]
    bones, values = largest_influences(weights, 5)
    assert bones.shape == (2, 8) and np.allclose(values[0, :5], weights[0]) and not values[:, 5:].any()


def errors_of(weights, animal, motion, points):
    """Squared distances from where all bones put the points, over a motion."""
    transforms = motion.T_object_canonical
    wanted = apply_transforms(blend_transforms(animal.skinning(points), transforms), points)
    return (apply_transforms(blend_transforms(weights, transforms), points) - wanted).square().sum(-1).sum(0)


@pytest.mark.parametrize("count", [2, 4])
def test_fitted_weights_are_few_and_follow_all_bones_closer_than_the_largest(animal, motion, count):
    points = proxy_mesh(animal.splats.gaussians(), resolution=48).vertices
    full = animal.skinning(points)
    fitted = fitted_weights(full, points, motion.T_object_canonical, count)
    assert (fitted > 0).sum(1).max() <= count and fitted.min() >= 0 and torch.allclose(fitted.sum(1), torch.ones(1))
    values, bones = full.topk(count, dim=1)
    largest = torch.zeros_like(full).scatter(1, bones, values / values.sum(1, keepdim=True))
    ours, theirs = (errors_of(weights, animal, motion, points) for weights in (fitted, largest))
    assert ours.sum() < 0.8 * theirs.sum() and ours.max() < theirs.max()


def test_weights_of_few_bones_are_left_as_they_are(animal, motion):
    values, bones = animal.weights.topk(3, dim=1)
    few = torch.zeros_like(animal.weights).scatter(1, bones, values / values.sum(1, keepdim=True))
    means = animal.splats.means
    for poses in (motion.T_object_canonical, motion.T_object_canonical[:0]):
        assert torch.allclose(fitted_weights(few, means, poses, 4), few, atol=1e-5)


def test_colours_become_linear_light():
    assert torch.allclose(linear_rgb(torch.tensor([[0.0, 0.5, 1.0]])), torch.tensor([[0.0, 0.21404, 1.0]]), atol=1e-4)


def test_an_invisible_animal_leaves_no_file(animal, tmp_path):
    splats = Splats(**{**vars(animal.splats), "opacities": torch.zeros(len(animal.splats))})
    with pytest.raises(ValueError, match="invisible"):
        write_gltf(tmp_path / "a.glb", RiggedAnimal(splats, animal.weights, animal.skinning, animal.skeleton), {})
    assert not list(tmp_path.iterdir())
