"""Laws of procedural creatures: same seed same pixels, symmetry, rigid parts, cameras that reproject."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from bags_ns.cameras import intrinsics_from_fov, orbit_camera, viewmats_from_camera_to_worlds
from bags_ns.data.creatures import (
    BODY_PLANS,
    FOOT_NAMES,
    PART_NAMES,
    AnimatedCreature,
    ClipSettings,
    Creatures,
    Lights,
    Poses,
    default_lights,
    part_transforms,
    posed_boxes,
    poses_at,
    random_animated_creature,
    random_creatures,
    random_gaits,
    random_lights,
    random_poses,
    render_creatures,
    rest_poses,
    write_creature_clip,
)
from bags_ns.data.creatures.pose import transform_points
from bags_ns.data.creatures.render import CreatureImages

FOV_DEG = 40.0
FRONT_LEFT, FRONT_RIGHT, BACK_LEFT, BACK_RIGHT = range(4)


def draw(
    creatures: Creatures,
    poses: Poses,
    azimuth_deg: float,
    size: int = 48,
    lights: Lights | None = None,
    num_steps: int = 28,
    compact: bool = True,
) -> CreatureImages:
    """Pictures of all creatures from one azimuth."""
    batch = len(poses.angles)
    camera = orbit_camera(torch.tensor(math.radians(azimuth_deg)), torch.tensor(0.2), torch.tensor(1.95))
    Ks = intrinsics_from_fov(FOV_DEG, size, size).expand(batch, 3, 3)
    return render_creatures(
        creatures, poses, camera.expand(batch, 4, 4), Ks, size, size, lights, num_steps=num_steps, compact=compact
    )


def symmetric_light(batch: int) -> Lights:
    """Light that is the same from all sides."""
    lights = default_lights(batch)
    return Lights(torch.tensor([0.0, 0.0, 1.0]).expand(batch, 3), lights.key, lights.sky, lights.ground, lights.head)


def premultiplied(images: CreatureImages) -> Tensor:
    """Colour times alpha."""
    return images.rgb * images.alpha


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.fixture
def animal() -> AnimatedCreature:
    return random_animated_creature(3, ["fox"])


def test_same_seed_same_pixels() -> None:
    pictures = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(5)
        creatures, poses = random_creatures(2, generator), random_poses(2, generator)
        pictures.append(draw(creatures, poses, 30.0, lights=random_lights(2, generator)))
    assert torch.equal(pictures[0].rgb, pictures[1].rgb)
    assert torch.equal(pictures[0].alpha, pictures[1].alpha)


def test_different_creatures_differ(generator: torch.Generator) -> None:
    rgb = premultiplied(draw(random_creatures(2, generator), rest_poses(2), 0.0))
    assert (rgb[0] - rgb[1]).abs().mean() > 0.003


@pytest.mark.parametrize("plan", sorted(BODY_PLANS))
def test_rest_box_is_centred_with_longest_side_one(plan: str, generator: torch.Generator) -> None:
    creatures = random_creatures(8, generator, body_plans=[plan])
    low, high = posed_boxes(creatures, rest_poses(8))
    torch.testing.assert_close(low, -high, atol=1e-5, rtol=0)
    torch.testing.assert_close((high - low).amax(dim=1), torch.ones(8), atol=1e-5, rtol=0)


def test_unknown_body_plan_is_named(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="unicorn.*fox"):
        random_creatures(1, generator, body_plans=["unicorn"])


def test_colours_and_alpha_are_in_range_and_something_is_seen(generator: torch.Generator) -> None:
    images = draw(random_creatures(6, generator), rest_poses(6), 70.0, lights=random_lights(6, generator))
    for values in images:
        assert values.dtype == torch.float32
        assert 0 <= values.min() and values.max() <= 1
    covered = images.alpha.mean(dim=(1, 2, 3))
    assert (covered > 0.01).all() and (covered < 0.5).all()
    assert images.alpha[:, [0, -1]].max() == 0 and images.alpha[:, :, [0, -1]].max() == 0
    # Antialiased: some pixels are partly covered.
    assert ((images.alpha > 0.05) & (images.alpha < 0.95)).any()


def test_silhouette_area_agrees_with_a_finer_picture(generator: torch.Generator) -> None:
    creatures, poses = random_creatures(4, generator), rest_poses(4)
    coarse, fine = (draw(creatures, poses, -30.0, size=size, num_steps=80).alpha for size in (40, 160))
    torch.testing.assert_close(coarse.mean(dim=(1, 2, 3)), fine.mean(dim=(1, 2, 3)), atol=0, rtol=0.05)


def test_turning_the_camera_is_turning_the_animal_back(generator: torch.Generator) -> None:
    creatures, poses, angle = random_creatures(2, generator), random_poses(2, generator), 50.0
    turn = torch.eye(4)
    c, s = math.cos(math.radians(-angle)), math.sin(math.radians(-angle))
    turn[:2, :2] = torch.tensor([[c, -s], [s, c]])
    turned = Poses(poses.angles, turn @ poses.T_world_root)
    light = symmetric_light(2)
    first, second = draw(creatures, poses, 20.0 + angle, lights=light), draw(creatures, turned, 20.0, lights=light)
    # Rays start at a ball around the animal's box, which changes with the turn: they take other steps along contours.
    assert (first.alpha - second.alpha).abs().mean() < 2e-3
    assert (premultiplied(first) - premultiplied(second)).abs().mean() < 2e-3


def test_rest_pose_is_mirror_symmetric(generator: torch.Generator) -> None:
    creatures = random_creatures(3, generator)
    creatures.coat.asymmetry.zero_()
    light = symmetric_light(3)
    left, right = (draw(creatures, rest_poses(3), azimuth, lights=light) for azimuth in (25.0, 180.0 - 25.0))
    torch.testing.assert_close(left.alpha, right.alpha.flip(2), atol=2e-3, rtol=0)
    torch.testing.assert_close(premultiplied(left), premultiplied(right).flip(2), atol=5e-3, rtol=0)


def test_azimuth_zero_sees_the_left_side_with_the_head_to_the_left(animal: AnimatedCreature) -> None:
    names = list(PART_NAMES)
    joints = animal.creature.joints[0]
    assert joints[names.index("head"), 1] < joints[names.index("tail_base"), 1]
    assert joints[names.index("front_left_upper"), 0] > 0 > joints[names.index("front_right_upper"), 0]
    camera = orbit_camera(torch.tensor(0.0), torch.tensor(0.2), torch.tensor(1.95))
    seen = transform_points(torch.linalg.inv(camera).expand(len(joints), 4, 4), joints)
    assert seen[names.index("head"), 0] < seen[names.index("tail_base"), 0]


def test_compact_and_fixed_paths_agree(generator: torch.Generator) -> None:
    creatures, poses, lights = random_creatures(4, generator), random_poses(4, generator), random_lights(4, generator)
    compact, fixed = (draw(creatures, poses, 200.0, 50, lights, compact=value) for value in (True, False))
    torch.testing.assert_close(compact.alpha, fixed.alpha, atol=1e-4, rtol=0)
    torch.testing.assert_close(premultiplied(compact), premultiplied(fixed), atol=1e-4, rtol=0)


def test_batch_equals_single_renders(generator: torch.Generator) -> None:
    creatures, poses = random_creatures(3, generator), random_poses(3, generator)
    batch = draw(creatures, poses, 10.0, compact=False)
    for index in range(3):
        one = draw(creatures[index : index + 1], poses[index : index + 1], 10.0, compact=False)
        torch.testing.assert_close(batch.alpha[index : index + 1], one.alpha, atol=1e-4, rtol=0)
        torch.testing.assert_close(batch.rgb[index : index + 1], one.rgb, atol=1e-3, rtol=0)


def test_wide_pictures_and_supersampling_show_the_same(generator: torch.Generator) -> None:
    creatures, poses = random_creatures(1, generator), rest_poses(1)
    camera = orbit_camera(torch.tensor([0.3]), torch.tensor([0.2]), torch.tensor([1.95]))
    square = intrinsics_from_fov(FOV_DEG, 48, 48)[None]
    wide = square.clone()
    wide[:, 0, 2] = 36.0
    plain = render_creatures(creatures, poses, camera, square, 48, 48, compact=True)
    widened = render_creatures(creatures, poses, camera, wide, 72, 48, compact=True)
    torch.testing.assert_close(widened.alpha[:, :, 12:60], plain.alpha, atol=1e-4, rtol=0)
    finer = render_creatures(creatures, poses, camera, square, 48, 48, supersample=2, compact=True)
    assert (finer.alpha - plain.alpha).abs().mean() < 0.01


def test_feet_are_inside_the_silhouette(animal: AnimatedCreature) -> None:
    times = torch.linspace(0, 1, 5)
    size = 96
    K = intrinsics_from_fov(FOV_DEG, size, size)
    camera = orbit_camera(torch.tensor(-0.6), torch.tensor(0.2), torch.tensor(1.95))
    alpha = draw(animal.creature.repeat_interleave(5), animal.pose_at(times), math.degrees(-0.6), size).alpha
    viewmat = viewmats_from_camera_to_worlds(camera[None])[0]
    feet = animal.foot_positions(times).flatten(0, 1)
    seen = feet @ viewmat[:3, :3].T + viewmat[:3, 3]
    pixels = (seen @ K.T)[:, :2] / seen[:, 2:]
    columns, rows = pixels.floor().long().unbind(-1)
    frames = torch.arange(5).repeat_interleave(4)
    assert (alpha[frames, rows, columns] > 0.5).all()


def test_feet_swing_fore_and_aft_one_after_another(animal: AnimatedCreature) -> None:
    feet = animal.foot_positions(torch.linspace(0, 1, 97))
    spans = feet.amax(dim=0) - feet.amin(dim=0)
    assert (spans[:, 1] > 0.08).all()
    assert (spans[:, 0] < 0.5 * spans[:, 1]).all()
    assert (spans[:, 2] > 0.01).all()
    # No two feet move alike.
    forward = feet[..., 1] - feet[..., 1].mean(dim=0)
    correlation = torch.corrcoef(forward.T) - torch.eye(4)
    assert correlation.max() < 0.9


def test_gait_repeats_after_one_cycle_and_is_smooth(generator: torch.Generator) -> None:
    gaits = random_gaits(4, generator)
    first, again = poses_at(gaits, torch.full((4,), 0.2)), poses_at(gaits, 0.2 + 1 / gaits.cycles)
    torch.testing.assert_close(first.angles, again.angles, atol=1e-4, rtol=0)
    step = poses_at(gaits, torch.full((4,), 0.2001)).angles - first.angles
    assert step.abs().max() < 0.0001 * 20
    assert ((gaits.cycles >= 1.5) & (gaits.cycles <= 2.0)).all()


def test_rest_transforms_are_identity(generator: torch.Generator) -> None:
    creatures = random_creatures(2, generator)
    expected = torch.eye(4).expand(2, len(PART_NAMES), 4, 4)
    torch.testing.assert_close(part_transforms(creatures, rest_poses(2)), expected, atol=1e-6, rtol=0)


def test_bone_transforms_are_identity_at_the_reference_time(animal: AnimatedCreature) -> None:
    transforms = animal.bone_transforms(torch.tensor([0.3, 0.8]), reference_time=0.3)
    torch.testing.assert_close(transforms[0], torch.eye(4).expand_as(transforms[0]), atol=1e-5, rtol=0)
    assert (transforms[1] - torch.eye(4)).abs().amax() > 0.05


def test_parts_move_rigidly(generator: torch.Generator) -> None:
    rotations = part_transforms(random_creatures(4, generator), random_poses(4, generator))[..., :3, :3]
    identity = torch.eye(3).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.transpose(-1, -2), identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(rotations.shape[:2]), atol=1e-5, rtol=0)


def test_points_of_the_feet_are_labelled_and_moved_with_them(animal: AnimatedCreature) -> None:
    feet = animal.foot_positions(torch.tensor([0.1, 0.7]))
    labels = animal.part_of_points(feet[0], 0.1)
    assert [PART_NAMES[label] for label in labels.tolist()] == list(FOOT_NAMES)
    torch.testing.assert_close(animal.move_points(feet[0], labels, 0.1, 0.7), feet[1], atol=1e-5, rtol=0)


def test_poses_reach_beyond_walking(generator: torch.Generator) -> None:
    poses = random_poses(256, generator)
    neck = poses.angles[:, PART_NAMES.index("lower_neck"), 0]
    hind = poses.angles[:, PART_NAMES.index("back_left_lower"), 0]
    assert neck.max() > 0.6 and hind.max() > 1.0


SMALL = ClipSettings(num_frames=4, size=32, num_test_times=2, num_test_azimuths=4)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "new" / "clip"
    calls: list[tuple[int, int]] = []
    write_creature_clip(folder, 4, SMALL, ["dog"], progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 12) for done in range(1, 13)]
    return folder


def test_clip_has_the_expected_files_and_nothing_beside_it(clip: Path) -> None:
    assert [path.name for path in clip.parent.iterdir()] == ["clip"]
    assert {path.name for path in clip.iterdir()} == {
        "images",
        "transforms_train.json",
        "transforms_test.json",
        "bones.json",
    }
    for split, count in (("train", 4), ("test", 8)):
        frames = json.loads((clip / f"transforms_{split}.json").read_text())["frames"]
        assert len(frames) == count
        assert all((clip / f"{frame['file_path']}.png").is_file() for frame in frames)


def test_clip_images_have_straight_alpha_and_black_outside(clip: Path) -> None:
    image = cv2.imread(str(clip / "images/train_001.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None and image.shape == (32, 32, 4) and image.dtype == np.uint8
    outside = image[..., 3] == 0
    assert outside.any() and (image[outside] == 0).all()
    assert image[..., 3].max() == 255


def test_clip_keys_and_times(clip: Path) -> None:
    train, test = (json.loads((clip / f"transforms_{split}.json").read_text()) for split in ("train", "test"))
    for contents in (train, test):
        assert contents["camera_angle_x"] == 0.69
        assert contents["fl_x"] == pytest.approx(0.5 * 32 / math.tan(0.345))
        assert (contents["cx"], contents["cy"], contents["w"], contents["h"]) == (16.0, 16.0, 32, 32)
    assert [frame["time"] for frame in train["frames"]] == [0, 1 / 3, 2 / 3, 1]
    assert sorted({frame["azimuth"] for frame in test["frames"]}) == [0, 90, 180, 270]
    for frame in test["frames"]:
        assert frame["time"] == train["frames"][frame["train_index"]]["time"]
        assert frame["file_path"] == f"images/test_f{frame['train_index']:03d}_az{frame['azimuth']:03d}"


def test_clip_cameras_are_proper_and_reproject_the_feet(clip: Path) -> None:
    contents = json.loads((clip / "transforms_train.json").read_text())
    bones = json.loads((clip / "bones.json").read_text())
    assert bones["part_names"] == list(PART_NAMES) and bones["foot_names"] == list(FOOT_NAMES)
    for frame, feet in zip(contents["frames"], bones["foot_positions"], strict=True):
        pose = torch.tensor(frame["transform_matrix"])
        assert torch.linalg.det(pose[:3, :3]) == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3), atol=1e-6, rtol=0)
        local = (torch.tensor(feet) - pose[:3, 3]) @ pose[:3, :3]
        columns = contents["cx"] + contents["fl_x"] * local[:, 0] / -local[:, 2]
        rows = contents["cy"] - contents["fl_y"] * local[:, 1] / -local[:, 2]
        alpha = cv2.imread(str(clip / f"{frame['file_path']}.png"), cv2.IMREAD_UNCHANGED)[..., 3]  # pyright: ignore
        assert (alpha[rows.floor().long().numpy(), columns.floor().long().numpy()] > 60).all()


def test_clip_camera_arc_and_transforms_are_as_asked(clip: Path) -> None:
    frames = json.loads((clip / "transforms_train.json").read_text())["frames"]
    positions = np.array([frame["transform_matrix"] for frame in frames])[:, :3, 3]
    azimuths = np.degrees(np.arctan2(positions[:, 1], positions[:, 0]))
    np.testing.assert_allclose(azimuths, [-45, -25, -5, 15], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), SMALL.radius, rtol=1e-6)
    transforms = torch.tensor(json.loads((clip / "bones.json").read_text())["T_world_rest"])
    expected = random_animated_creature(4, ["dog"]).bone_transforms(torch.linspace(0, 1, 4))
    torch.testing.assert_close(transforms, expected, atol=1e-5, rtol=0)


def test_clip_refuses_an_existing_folder_and_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="remove it"):
        write_creature_clip(tmp_path, 0, SMALL)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_creature_clip(tmp_path / "clip", 0, SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []
