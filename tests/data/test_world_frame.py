"""A clip with known cameras is the same clip in whatever units, place and orientation its camera file is."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from drawn_clips import draw, write_image, write_orbit

from bags_ns.cameras import orbit_camera
from bags_ns.data.images import read_rgba
from bags_ns.data.layouts import find_clip
from bags_ns.data.prepare import PrepareSettings, prepare
from bags_ns.data.seed_points import View
from bags_ns.data.world_frame import moved_pose, up_of_cameras, world_frame

ARC, STATIC, ROUND = list(np.linspace(-35, 35, 7)), [20.0] * 4, [0, 90, 180, 270]


def similarity(seed: int) -> np.ndarray:
    """A random rotation, a scale from a hundredth to a hundred, a place far away."""
    generator = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    T = np.eye(4)
    scale = 10 ** generator.uniform(0.5, 2) ** (1 if seed % 2 else -1)
    T[:3, :3], T[:3, 3] = scale * rotation, scale * generator.uniform(-50, 50, 3)
    return T


def rewrite(root: Path, T: np.ndarray) -> Path:
    """Moves every camera of the clip's files into the world that T leads to."""
    for path in root.glob("transforms*.json"):
        meta = json.loads(path.read_text())
        for frame in meta["frames"]:
            frame["transform_matrix"] = moved_pose(T, np.array(frame["transform_matrix"])).tolist()
        path.write_text(json.dumps(meta))
    return root


def write_clip(root: Path, azimuths: list[float], tests: list[float]) -> Path:
    write_orbit(root, azimuths)
    if tests:
        write_orbit(root, tests, "transforms_test.json", "test")
    return root


def matrices(root: Path) -> np.ndarray:
    """The train cameras' poses as the file has them."""
    return np.array(
        [frame["transform_matrix"] for frame in json.loads((root / "transforms_train.json").read_text())["frames"]]
    )


def prepared(root: Path, cache: Path, **settings):
    return prepare(find_clip(root), PrepareSettings(num_seed_points=500, **settings), cache)


def poses_of(clip) -> np.ndarray:
    return np.stack([frame.camera.camera_to_world for frame in (*clip.train, *clip.test)])


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("azimuths, tests", [(ARC, ROUND), (ARC, []), (STATIC, ROUND), (STATIC, [])])
def test_any_similarity_of_the_scene_gives_the_same_clip(azimuths, tests, seed, tmp_path):
    first = prepared(write_clip(tmp_path / "a", azimuths, tests), tmp_path / "cache", orientation="cameras")
    T = similarity(seed)
    moved_root = rewrite(write_clip(tmp_path / "b", azimuths, tests), T)
    for orientation in ("cameras", "auto"):
        moved = prepared(moved_root, tmp_path / "cache", orientation=orientation)
        assert np.allclose(poses_of(moved), poses_of(first), atol=2e-3)
        assert np.allclose(moved.seed_xyz, first.seed_xyz, atol=2e-3)
        if (
            azimuths is ARC or tests
        ):  # else nothing tells how far away, and so how large, the animal is in the file's world
            assert np.allclose(moved.info.T_world_input.numpy() @ T, first.info.T_world_input, atol=2e-3)


def test_the_models_frame_has_the_animal_at_the_origin_one_long_and_upright(tmp_path):
    root = rewrite(write_clip(tmp_path / "in", ARC, ROUND), similarity(3))
    clip = prepared(root, tmp_path / "cache")
    canonical = clip.train[clip.info.canonical_index].camera.camera_to_world
    # The ball has a diameter of .8 and is seen from a distance of 2, a little larger than through its middle plane.
    assert np.allclose(canonical[:3, 3], [2.0 / 0.8165, 0, 0], atol=0.05)
    assert np.allclose(canonical[:3, :3], [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=0.02)
    assert np.allclose(clip.seed_xyz.mean(axis=0), 0, atol=0.1) and clip.seed_xyz.norm(dim=1).max() < 0.75
    # What a picture shows is where it was: points that start inside the animal are seen inside its silhouettes.
    for frame in (*clip.train, *clip.test):
        view = View(read_rgba(frame.image)[..., 3], frame.camera.intrinsics, frame.camera.camera_to_world)
        assert view.contains(clip.seed_xyz.double().numpy()).mean() > 0.75


@pytest.mark.parametrize("azimuths, tests", [(ARC, ROUND), (STATIC, ROUND), (STATIC, [])])
def test_a_scene_that_stands_there_already_is_used_as_it_is_and_any_can_be(azimuths, tests, tmp_path):
    root = write_clip(tmp_path / "in", azimuths, tests)
    given = matrices(root)
    assert np.array_equal(poses_of(prepared(root, tmp_path / "cache"))[: len(azimuths)], given)
    far = rewrite(root, similarity(4))
    given = matrices(far)
    as_is = prepared(far, tmp_path / "cache", orientation="as-is", seed_radius=1e3 * 0.6)
    assert np.array_equal(poses_of(as_is)[: len(azimuths)], given)


def test_what_was_moved_once_stays(tmp_path):
    clip = prepared(rewrite(write_clip(tmp_path / "in", ARC, []), similarity(5)), tmp_path / "cache")
    views = [View(read_rgba(f.image)[..., 3], f.camera.intrinsics, f.camera.camera_to_world) for f in clip.train]
    assert np.array_equal(world_frame(views[3], views, poses_of(clip), "auto"), np.eye(4))
    assert np.allclose(world_frame(views[3], views, poses_of(clip), "cameras"), np.eye(4), atol=2e-3)


def orbit_poses(azimuths, elevations):
    import torch

    angles = [torch.deg2rad(torch.tensor(list(values), dtype=torch.float64)) for values in (azimuths, elevations)]
    return orbit_camera(*angles, torch.full_like(angles[0], 2.0)).numpy()


def test_up_is_where_no_camera_is_rolled():
    rotation = similarity(1)[:3, :3]
    rotation /= np.cbrt(np.linalg.det(rotation))
    around = orbit_poses(range(0, 60, 5), np.linspace(5, 50, 12))
    around[:, :3, :3] = rotation @ around[:, :3, :3]
    assert np.allclose(up_of_cameras(around), rotation[:, 2], atol=1e-9)
    shaken = around.copy()
    for pose, roll in zip(shaken, np.random.default_rng(0).normal(0, math.radians(1.5), len(shaken)), strict=True):
        turn = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
        pose[:3, :3] = pose[:3, :3] @ turn
    assert up_of_cameras(shaken) @ rotation[:, 2] > math.cos(math.radians(3))
    still = orbit_poses([30] * 5, [0] * 5)
    assert np.allclose(up_of_cameras(still), [0, 0, 1], atol=1e-9)


def test_the_files_own_up_is_kept_where_all_cameras_are_level_to_it_or_where_asked(tmp_path):
    """A fixed camera that looks down cannot say what is up, but a level horizon can."""
    ball = np.dstack(draw((32, 32), (14, 14), (64, 64)))
    pose = orbit_poses([40], [25])[0]
    pose[:3, 3] *= 30
    for index in range(3):
        write_image(tmp_path / f"in/images/{index}.png", ball)
    frames = [{"file_path": f"images/{index}.png", "transform_matrix": pose.tolist()} for index in range(3)]
    meta = {"camera_angle_x": math.radians(40), "frames": frames}
    (tmp_path / "in/transforms.json").write_text(json.dumps(meta))
    ups = {}
    for orientation in ("auto", "z-up", "cameras"):
        clip = prepared(tmp_path / "in", tmp_path / "cache", orientation=orientation)
        ups[orientation] = float(clip.train[0].camera.camera_to_world[2, 1])  # how far the camera's up is the world's
    assert ups["auto"] == ups["z-up"] == pytest.approx(math.cos(math.radians(25)), abs=1e-6)
    assert ups["cameras"] == pytest.approx(1, abs=1e-6)


def test_nerfstudio_is_told_how_the_scene_was_moved(tmp_path):
    from bags_ns.data.dataparser import AnimalVideoDataParserConfig

    root = write_clip(tmp_path / "in", ARC, [])
    given = matrices(root)
    T = similarity(6)
    rewrite(root, T)
    config = AnimalVideoDataParserConfig(data=root, cache_dir=tmp_path / "cache", num_seed_points=200)
    outputs = config.setup().get_dataparser_outputs("train")
    positions = np.array([moved_pose(T, pose)[:3, 3] for pose in given])
    transform, scale = outputs.dataparser_transform.numpy().astype(np.float64), outputs.dataparser_scale
    assert np.allclose(transform[:, :3] @ transform[:, :3].T, np.eye(3), atol=1e-5)
    moved = scale * (positions @ transform[:, :3].T + transform[:, 3])
    assert np.allclose(moved, outputs.cameras.camera_to_worlds[:, :, 3], atol=2e-2)
