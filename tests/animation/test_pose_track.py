"""Keyframe tracks: what goes into a file comes back, wrong files are refused in one line, curves run through keyframes."""

import json
import math

import pytest
import torch
from rigs import LEGS, NECK, NUM_BONES, TRUNK, bone_covars, quadruped, random_rotations, walk

from bags_ns.animation.interpolation import position_at, rotation_at
from bags_ns.animation.joint_rotations import (
    blend_poses,
    fit_rotations,
    pose_from_rotations,
    shifted_root,
)
from bags_ns.animation.mirroring import MIDDLE, fit_plane, mirror_rotations, pair_bones
from bags_ns.animation.pose_track import Keyframe, PoseTrack, RootPose, keyframe_from_rotations, load_track
from bags_ns.rig.motion import Pose
from bags_ns.rig.transforms import rigid, so3_exp, so3_log, transform_points


@pytest.fixture
def skeleton():
    return quadruped()[0]


def walking_track(skeleton, **changes):
    times = [0.0, 0.3, 0.7, 1.0]
    keyframes = tuple(
        keyframe_from_rotations(time, walk(6 * time), skeleton.names, rigid(so3_exp(torch.zeros(3)), torch.tensor([0.0, time, 0.0])))
        for time in times
    )  # fmt: skip
    fields = {"joint_names": tuple(skeleton.names), "parents": tuple(skeleton.parents.tolist())}
    return PoseTrack(**{**fields, "keyframes": keyframes, "duration": 1.5, **changes})


def test_a_saved_track_comes_back_the_same(skeleton, tmp_path):
    track = walking_track(skeleton, interpolation="cubic", video_share=0.25, fps=30.0)
    track.save(tmp_path / "walk.json")
    again = load_track(tmp_path / "walk.json", skeleton)
    assert again.duration == track.duration
    for time in (0.0, 0.2, 0.7, 1.4):
        ours, theirs = track.pose_at(time, skeleton), again.pose_at(time, skeleton)
        assert torch.allclose(ours.T_world_canonical, theirs.T_world_canonical, atol=1e-6)
    assert (again.interpolation, again.video_share, again.fps) == ("cubic", 0.25, 30.0)
    assert [p.name for p in tmp_path.iterdir()] == ["walk.json"]


BROKEN = {
    "unknown joint": (lambda d: d["keyframes"][1]["rotations"].update(tail_99=[1, 0, 0, 0]), "unknown joint 'tail_99'"),
    "times that go back": (lambda d: d["keyframes"][2].update(time=0.1), "must ascend"),
    "another model's joints": (lambda d: d["model"].update(joints=[f"j{i}" for i in range(NUM_BONES)]), "joint"),
    "another model's tree": (lambda d: d["model"]["parents"].__setitem__(3, 0), "another model"),
    "a time that is text": (lambda d: d["keyframes"][0].update(time="soon"), "keyframes[0].time must be a number"),
    "a short quaternion": (lambda d: d["keyframes"][0]["rotations"].update(bone_01=[1, 0, 0]), "list of 4 numbers"),
    "a long quaternion": (lambda d: d["keyframes"][0]["rotations"].update(bone_01=[2, 0, 0, 0]), "not of length 1"),
    "no keyframes": (lambda d: d.update(keyframes=[]), "at least one keyframe"),
    "a newer version": (lambda d: d.update(version=2), "version 2"),
    "another document": (lambda d: d.clear(), "not a pose track"),
    "a root here and there": (lambda d: d["keyframes"][1].pop("root"), "no root"),
    "an unknown curve": (lambda d: d.update(interpolation="wavy"), "'slerp' or 'cubic'"),
    "a share above 1": (lambda d: d.update(video_share=1.5), "video_share"),
    "a list for an object": (lambda d: d["keyframes"].__setitem__(0, [1]), "keyframes[0] must be an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_track_is_refused_in_one_line(name, skeleton, tmp_path):
    path = tmp_path / "walk.json"
    walking_track(skeleton).save(path)
    document = json.loads(path.read_text())
    change, message = BROKEN[name]
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError) as caught:
        load_track(path, skeleton)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "walk.json" in str(caught.value)


def test_what_is_not_json_is_refused_in_one_line(tmp_path):
    for name, content in (("a.json", b"{"), ("b.json", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_track(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_track(tmp_path / "none.json")


def test_keyframes_are_added_and_replaced(skeleton):
    track = walking_track(skeleton)
    more = track.with_keyframe(Keyframe(2.0, {}, RootPose()))
    assert more.duration == 2.0 and len(more.keyframes) == 5
    same = more.with_keyframe(Keyframe(0.3, {}, RootPose()))
    assert len(same.keyframes) == 5 and torch.allclose(same.rotations_at(0.3), torch.eye(3).expand(NUM_BONES, 3, 3))


@pytest.mark.parametrize("method", ["slerp", "cubic"])
def test_curves_meet_their_keyframes_and_stay_rotations(method):
    knots, rotations = torch.tensor([0.0, 0.5, 0.8, 2.0]), random_rotations(0, 4, 5, angle=0.5)
    for index, knot in enumerate(knots):
        assert torch.allclose(rotation_at(knots, rotations, float(knot), method), rotations[index], atol=1e-5)
    between = rotation_at(knots, rotations, 1.3, method)
    assert torch.allclose(between @ between.mT, torch.eye(3).expand(5, 3, 3), atol=1e-5)
    assert torch.allclose(rotation_at(knots, rotations, 9.0, method), rotations[-1], atol=1e-5)
    assert torch.allclose(rotation_at(knots, rotations, -1.0, method), rotations[0], atol=1e-5)


def test_slerp_turns_evenly_and_cubic_has_no_jump_in_speed():
    knots = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    rotations = so3_exp(torch.tensor([[0, 0, 0], [0.9, 0, 0], [0.9, 0, 0.8]], dtype=torch.float64))
    half = rotation_at(knots, rotations, 0.5, "slerp")
    assert torch.allclose(so3_log(half), torch.tensor([0.45, 0, 0], dtype=torch.float64), atol=1e-9)
    step = 1e-4
    before, at, after = (rotation_at(knots, rotations, 1.0 + d, "cubic") for d in (-step, 0.0, step))
    jump = (so3_log(at.mT @ after) - so3_log(before.mT @ at)) / step
    assert jump.norm() < 1e-2
    positions = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [3.0, 0, 0]], dtype=torch.float64)
    assert torch.allclose(position_at(knots, positions, 2.2, "cubic")[0], torch.tensor(2.2, dtype=torch.float64))


def test_no_keyframed_turn_is_the_canonical_pose_and_a_parent_carries_its_children(skeleton):
    names = skeleton.names
    still = walking_track(skeleton, keyframes=(Keyframe(0.0, {}),))
    assert torch.equal(still.pose_at(0.4, skeleton).T_world_canonical, torch.eye(4).expand(NUM_BONES, 4, 4))
    upper, lower = LEGS["front_left"]
    quarter = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)
    bent = walking_track(skeleton, keyframes=(Keyframe(0.0, {names[upper]: quarter}),)).pose_at(0.0, skeleton)
    assert torch.allclose(bent.T_object_canonical[upper], bent.T_object_canonical[lower])
    hip = skeleton.joints[upper]
    assert torch.allclose(transform_points(bent.T_object_canonical[upper], hip[None])[0], hip, atol=1e-6)


def test_the_videos_pose_is_blended_in_and_its_root_kept(skeleton):
    video = Pose(pose_from_rotations(walk(2.0), skeleton).T_object_canonical, rigid(torch.eye(3), torch.ones(3)))
    unrooted = (Keyframe(0.0, {}),)
    for share, expected in ((0.0, torch.eye(4).expand(NUM_BONES, 4, 4)), (1.0, video.T_object_canonical)):
        track = walking_track(skeleton, keyframes=unrooted, video_share=share)
        pose = track.pose_at(0.0, skeleton, video)
        assert torch.allclose(pose.T_object_canonical, expected, atol=1e-5)
        assert torch.equal(pose.T_world_object, video.T_world_object)
    half = blend_poses(video, video, 0.5, skeleton.joints)
    assert torch.allclose(half.T_world_canonical, video.T_world_canonical, atol=1e-5)


def test_motion_made_of_joint_rotations_is_fitted_exactly(skeleton):
    centers = quadruped()[1]
    rotations = torch.stack([walk(p) for p in (0.0, 1.0, 2.0)])
    rotations[:, TRUNK] = random_rotations(2, 3, angle=0.3)
    shift = torch.tensor([[0.0, 0, 0], [0.1, 0.2, 0.0], [0, 0, -0.3]])
    bones = torch.stack([pose_from_rotations(r, skeleton).T_object_canonical for r in rotations])
    moved = shifted_root(torch.eye(4).expand(3, 4, 4), shift)[:, None] @ bones
    fitted, found_shift = fit_rotations(moved, skeleton, centers, bone_covars())
    assert torch.allclose(fitted, rotations, atol=1e-5) and torch.allclose(found_shift, shift, atol=1e-5)


def test_bones_that_part_from_their_parents_are_followed_as_closely_as_joints_can(skeleton):
    centers = quadruped()[1]
    bones = torch.eye(4).repeat(1, NUM_BONES, 1, 1)
    bones[0, list(LEGS["front_left"]), 1, 3] = 0.1  # the whole leg slides backwards, unturned
    rotations, shift = fit_rotations(bones, skeleton, centers, bone_covars(0.02))
    fitted = pose_from_rotations(rotations[0], skeleton, shifted_root(torch.eye(4), shift[0])).T_world_canonical
    foot = LEGS["front_left"][1]
    reached = transform_points(fitted[foot], centers[foot][None])[0]
    assert (reached - centers[foot] - torch.tensor([0, 0.1, 0])).norm() < 0.04


def test_bones_are_paired_left_and_right(skeleton):
    centers = quadruped()[1]
    noisy = centers + 0.01 * torch.randn(NUM_BONES, 3, generator=torch.Generator().manual_seed(0))
    pairs = pair_bones(noisy)
    assert pairs[TRUNK] == TRUNK and pairs[NECK] == NECK
    for side in ("front", "back"):
        for left, right in zip(LEGS[f"{side}_left"], LEGS[f"{side}_right"], strict=True):
            assert pairs[left] == right and pairs[right] == left
    points = (noisy[:, None] + 0.02 * torch.randn(NUM_BONES, 50, 3)).flatten(0, 1)
    assert abs(float(fit_plane(points).normal[0])) > 0.99


def test_mirroring_reflects_the_posed_animal_and_twice_is_nothing(skeleton):
    centers = quadruped()[1]
    pairs, rotations = pair_bones(centers), random_rotations(3, NUM_BONES, angle=0.5)
    mirrored = mirror_rotations(rotations, pairs)
    assert torch.allclose(mirror_rotations(mirrored, pairs), rotations, atol=1e-6)
    ours, theirs = (pose_from_rotations(turns, skeleton).T_world_canonical for turns in (rotations, mirrored))
    moved = transform_points(ours, centers[:, None])[:, 0]
    assert torch.allclose(transform_points(theirs, centers[:, None])[:, 0], MIDDLE.reflect(moved)[pairs], atol=1e-5)
