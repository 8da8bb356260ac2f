"""The editor without a window: nothing jumps when a person takes hold, keyframes go where they are put, all can be undone."""

import json
import math

import pytest
import torch

from bags_ns.animation.joint_rotations import fit_rotations, pose_from_rotations, shifted_root
from bags_ns.animation.mirroring import MIDDLE
from bags_ns.animation.pose_track import Keyframe, PoseTrack, RootPose
from bags_ns.rig.skeleton import Skeleton
from bags_ns.rig.transforms import rigid, so3_exp, so3_log, transform_points
from bags_ns.viewer.editor import PoseEditor
from bags_ns.viewer.first_view import whole_view
from bags_ns.viewer.playback import Playback
from bags_ns.viewer.rig_handles import tree_tour

HIP, KNEE, ROOT = 1, 2, 0
CENTERS = torch.tensor([[0.0, 0, 0], [0.2, 0, -0.1], [0.2, 0, -0.4], [-0.2, 0, -0.1], [-0.2, 0, -0.4]])
DURATION = 2.0


@pytest.fixture
def skeleton() -> Skeleton:
    """A trunk with a leg of two bones on either side."""
    skeleton = Skeleton(5)
    skeleton.parents.copy_(torch.tensor([-1, 0, 1, 0, 3]))
    partner = CENTERS[[0, 0, 1, 0, 3]]
    skeleton.joints.copy_(0.5 * (CENTERS + partner))
    return skeleton


@pytest.fixture
def editor(skeleton) -> PoseEditor:
    """The video bends both hips and walks along y."""

    def video(time):
        vectors = torch.zeros(5, 3)
        vectors[HIP, 0], vectors[3, 0] = time, -time
        return pose_from_rotations(so3_exp(vectors), skeleton, rigid(torch.eye(3), torch.tensor([0.0, time, 0.0])))

    def fit(pose):
        covars = torch.eye(3).expand(5, 3, 3) * 0.01
        rotations, shift = fit_rotations(pose.T_object_canonical[None], skeleton, CENTERS, covars)
        return rotations[0], shifted_root(pose.T_world_object, shift[0])

    return PoseEditor(skeleton, video, fit, DURATION, 24.0)


def transforms(editor, time=None):
    return editor.pose_at(editor.time if time is None else time).T_world_canonical


def turned(editor, joint, x):
    """What a gizmo says after a turn by `x` radians about the world's x axis."""
    return so3_exp(torch.tensor([x, 0.0, 0.0])) @ transforms(editor)[joint, :3, :3]


def test_it_opens_with_the_video(editor):
    assert torch.equal(transforms(editor, 0.7), editor._video(0.7).T_world_canonical)


def test_taking_hold_of_a_joint_changes_nothing_but_what_hangs_on_it(editor):
    editor.time = 0.5
    before = transforms(editor)
    wanted = turned(editor, HIP, 0.6)
    editor.turn(HIP, wanted)
    after = transforms(editor)
    assert torch.allclose(after[HIP, :3, :3], wanted, atol=1e-4)
    assert torch.allclose(after[[0, 3, 4]], before[[0, 3, 4]], atol=1e-4)
    hip = editor.skeleton.joints[HIP][None]
    assert torch.allclose(transform_points(after[HIP], hip), transform_points(before[HIP], hip), atol=1e-4)
    relative = before[HIP].inverse() @ before[KNEE]
    assert torch.allclose(after[HIP].inverse() @ after[KNEE], relative, atol=1e-4)  # the parent carries its child
    assert editor.work.video_share == 0


def test_the_animal_moves_as_a_whole(editor):
    before, shift = transforms(editor), torch.tensor([0.1, 0.2, 0.3])
    editor.move(shift)
    assert torch.allclose(transforms(editor)[:, :3, 3], before[:, :3, 3] + shift, atol=1e-5)


def test_a_blend_lies_between_the_pose_and_the_video(editor):
    editor.time = 1.0
    editor.reset()
    for share, angle in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        editor.set_video_share(share)
        assert float(so3_log(transforms(editor)[HIP, :3, :3]).norm()) == pytest.approx(angle, abs=1e-4)


def test_mirroring_twice_leads_back(editor):
    editor.turn(HIP, turned(editor, HIP, 0.4))
    before = transforms(editor)
    editor.mirror(CENTERS, MIDDLE)
    mirrored = transforms(editor)
    assert torch.allclose(mirrored[3, :3, :3], before[HIP, :3, :3], atol=1e-5)  # about x, across x = 0
    assert torch.allclose(mirrored[HIP, :3, :3], torch.eye(3), atol=1e-5)
    editor.mirror(CENTERS, MIDDLE)
    assert torch.allclose(transforms(editor), before, atol=1e-5)


def test_joints_are_reset_one_by_one_or_all_together(editor):
    editor.time = 1.0
    editor.reset(HIP)
    assert torch.allclose(transforms(editor)[HIP, :3, :3], torch.eye(3), atol=1e-4)
    assert float(so3_log(transforms(editor)[3, :3, :3]).norm()) > 0.9
    editor.reset()
    assert torch.allclose(transforms(editor)[:, :3, :3], torch.eye(3).expand(5, 3, 3), atol=1e-4)


def two_keyframes(editor):
    editor.time = 0.0
    editor.reset()
    editor.add_keyframe()
    editor.time = 0.5
    editor.turn(HIP, turned(editor, HIP, 1.0))
    editor.add_keyframe()
    return editor


def test_between_keyframes_joints_turn_evenly(editor):
    two_keyframes(editor)
    assert editor.key_times == [0.0, 1.0]
    angles = [float(so3_log(transforms(editor, time)[HIP, :3, :3])[0]) for time in (0.0, 0.125, 0.25, 0.5, 1.0)]
    assert angles == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0], abs=1e-4)


def test_an_edit_without_a_keyframe_is_shown_at_its_own_time_only(editor):
    two_keyframes(editor)
    editor.time = 0.25
    between = transforms(editor)
    editor.turn(HIP, turned(editor, HIP, -1.0))
    assert (transforms(editor) - between).abs().max() > 0.5
    assert torch.equal(transforms(editor), transforms(editor, float(torch.tensor(0.25, dtype=torch.float32))))
    editor.time = 0.5
    editor.time = 0.26
    assert float(so3_log(transforms(editor)[HIP, :3, :3])[0]) == pytest.approx(0.52, abs=1e-4)


def test_keyframes_are_moved_and_deleted(editor):
    two_keyframes(editor)
    editor.time = 0.75
    editor.move_keyframe(1)
    assert editor.key_times == [0.0, 1.5]
    editor.time = 0.0
    with pytest.raises(ValueError, match="keyframe at 0 s already"):
        editor.move_keyframe(1)
    editor.delete_keyframe(1)
    editor.delete_keyframe(0)
    assert editor.key_times == [] and editor.work.track is None
    with pytest.raises(ValueError, match="no keyframes yet"):
        editor.delete_keyframe(0)


def load_keyframes(editor, folder, times, duration, rooted=True):
    """Gives the editor a track of another making: canonical poses at `times`, in seconds."""
    names, parents = tuple(editor.skeleton.names), tuple(editor.skeleton.parents.tolist())
    keyframes = tuple(Keyframe(time, {}, RootPose() if rooted else None) for time in times)
    PoseTrack(names, parents, keyframes, duration, fps=30.0).save(folder / "loaded.json")
    editor.load(folder / "loaded.json")


def test_a_keyframe_on_a_frame_of_a_film_is_replaced_and_not_doubled(editor, tmp_path):
    times = [round(frame / 30, 6) for frame in range(24)]
    load_keyframes(editor, tmp_path, times, times[-1])
    for time in times:
        editor.time = time / editor.work.duration
        editor.turn(HIP, turned(editor, HIP, 0.1))
        editor.add_keyframe()
        assert editor.key_times == times
        assert float(so3_log(transforms(editor)[HIP, :3, :3])[0]) == pytest.approx(0.1, abs=1e-4)
    editor.move_keyframe(23)
    assert editor.key_times == times
    with pytest.raises(ValueError, match="already"):
        editor.move_keyframe(10)


@pytest.mark.parametrize("moved", [False, True])
def test_no_keyframe_lies_beyond_the_end(editor, moved):
    editor.set_duration(23 / 30)  # .76667: the nearest millisecond comes after it
    editor.time = 0.5 if moved else 1.0
    editor.add_keyframe()
    editor.time = 1.0
    if moved:
        editor.move_keyframe(0)
    assert editor.track.duration == editor.work.duration == 23 / 30 == editor.key_times[0]
    editor.set_duration(editor.work.duration)


def test_no_two_keyframes_are_told_apart_by_less_than_a_millisecond(editor, tmp_path):
    load_keyframes(editor, tmp_path, [0.33351], DURATION)
    for step in range(41):
        editor.time = (0.3325 + 1e-4 * step) / DURATION
        editor.add_keyframe()
    labels = [f"{time:.3f}" for time in editor.key_times]
    assert 0.33351 in editor.key_times and len(set(labels)) == len(labels) > 3


def test_a_track_without_roots_gets_them_when_the_animal_is_moved(editor, tmp_path):
    load_keyframes(editor, tmp_path, [0.0, 1.5], DURATION, rooted=False)
    editor.time = 0.5
    editor.reset(HIP)
    editor.add_keyframe()
    assert torch.allclose(transforms(editor, 0.6), editor._video(0.6).T_world_object, atol=1e-6)  # it walks on
    editor.move(torch.tensor([0.0, 0.0, 0.3]))
    before = [transforms(editor, time) for time in (0.0, 0.5, 0.75)]
    editor.add_keyframe()
    after = [transforms(editor, time) for time in (0.0, 0.5, 0.75)]
    assert torch.allclose(torch.stack(before), torch.stack(after), atol=1e-5)
    editor.undo()
    editor.undo()
    assert editor.work.track.keyframes[0].root is None


def test_every_action_can_be_undone_and_one_drag_is_one_action(editor):
    seen = [editor.work]
    for step in range(5):
        editor.turn(HIP, turned(editor, HIP, 0.1 * step))
    seen.append(editor.work)
    for action in (editor.add_keyframe, editor.reset, lambda: editor.mirror(CENTERS, MIDDLE), editor.add_keyframe):
        action()
        seen.append(editor.work)
    for work in reversed(seen[:-1]):
        editor.undo()
        assert editor.work is work
    with pytest.raises(ValueError, match="nothing to undo"):
        editor.undo()


def test_a_slider_that_has_rested_begins_another_action(editor, monkeypatch):
    seen = []
    for moment, share in ((5.0, 0.8), (5.4, 0.6), (6.3, 0.5), (9.0, 0.3), (9.5, 0.2)):
        monkeypatch.setattr("bags_ns.viewer.editor.monotonic", lambda moment=moment: moment)
        editor.set_video_share(share)
    for _ in range(2):
        editor.undo()
        seen.append(editor.work.video_share)
    assert seen == [0.5, 1.0]


def test_a_longer_duration_keeps_the_keyframes_and_the_present_second(editor):
    two_keyframes(editor)
    editor.set_duration(4.0)
    assert editor.key_times == [0.0, 1.0] and editor.seconds == pytest.approx(1.0)
    with pytest.raises(ValueError, match="keyframe at 1 s"):
        editor.set_duration(0.5)


def test_saved_work_is_loaded_as_it_was(editor, tmp_path):
    with pytest.raises(ValueError, match="no keyframes yet"):
        editor.save(tmp_path / "none.json")
    two_keyframes(editor)
    editor.set_interpolation("cubic")
    editor.set_video_share(0.25)
    before = [transforms(editor, time) for time in (0.0, 0.3, 1.0)]
    editor.save(tmp_path / "track.json")
    assert json.loads((tmp_path / "track.json").read_text())["video_share"] == 0.25
    while editor.work.track is not None:
        editor.undo()
    editor.load(tmp_path / "track.json")
    after = [transforms(editor, time) for time in (0.0, 0.3, 1.0)]
    assert torch.allclose(torch.stack(before), torch.stack(after), atol=1e-5)
    (tmp_path / "broken.json").write_text("{")
    work = editor.work
    with pytest.raises(ValueError, match="broken.json"):
        editor.load(tmp_path / "broken.json")
    assert editor.work is work


def test_keyframes_of_a_skeleton_that_training_has_changed_are_not_gone_on_with(editor, tmp_path):
    two_keyframes(editor)
    editor.skeleton.parents.copy_(torch.tensor([-1, 0, 1, 0, 1]))
    work = editor.work
    for action in (editor.add_keyframe, lambda: editor.save(tmp_path / "track.json")):
        with pytest.raises(ValueError, match="before its training ended"):
            action()
    assert editor.work is work and not list(tmp_path.iterdir())
    editor.delete_keyframe(1)
    editor.delete_keyframe(0)
    editor.add_keyframe()
    editor.save(tmp_path / "track.json")
    editor.load(tmp_path / "track.json")


def test_time_runs_as_fast_as_it_is_told():
    clock = Playback(speed=2.0)
    assert clock.advance(0.1, 1.0, 10.0) == 0.1
    assert clock.start(0.1) == 0.1 and clock.start(1.0) == 0.0
    assert clock.advance(0.1, 1.0, 10.0) == pytest.approx(0.3)
    assert clock.advance(0.9, 1.0, 10.0) == pytest.approx(0.1) and clock.playing
    clock.loop = False
    assert clock.advance(0.9, 1.0, 10.0) == 1.0 and not clock.playing


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.0])
def test_the_first_view_has_all_points_in_it(aspect):
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0, 2.0]) + 4.0
    direction, fov = torch.tensor([1.0, 0.3, 0.2]), math.radians(60)
    position, middle = whole_view(points, direction, fov, aspect)
    from bags_ns.cameras import look_at

    local = transform_points(look_at(position, middle).inverse(), points)
    heights, widths = local[:, 1] / -local[:, 2], local[:, 0] / -local[:, 2]
    assert (local[:, 2] < 0).all()
    assert heights.abs().max() < math.tan(fov / 2) and widths.abs().max() < aspect * math.tan(fov / 2)
    assert max(heights.abs().max() / math.tan(fov / 2), widths.abs().max() / (aspect * math.tan(fov / 2))) > 0.4


def test_a_tour_of_the_tree_goes_along_every_edge_and_to_every_tip(skeleton):
    tour = tree_tour(skeleton.parents)
    steps = {frozenset(pair) for pair in zip(tour[:-1], tour[1:], strict=True)}
    assert steps == {frozenset(p) for p in [(0, 1), (1, 2), (0, 3), (3, 4), (2, 7), (4, 9)]}
