"""What the viewer exports of keyframes is what it shows of them, and what the commands make of the saved file."""

import pytest
import torch

from bags_ns.animation.pose_track import load_track
from bags_ns.rig.transforms import so3_exp
from bags_ns.rigged import motions_by_name, posed_splats, track_motion
from bags_ns.viewer import exports
from bags_ns.viewer.controls import AnimalControls


@pytest.fixture(params=[0.0, 0.4, 1.0])
def editor(pipeline, request):
    """Two keyframes, the second with a joint turned, and a share of the video's motion."""
    camera = pipeline.datamanager.train_dataset.cameras.camera_to_worlds[0]
    editor = AnimalControls(pipeline.model, camera).editor
    editor.reset()
    editor.add_keyframe()
    editor.time = 1.0
    editor.turn(3, so3_exp(torch.tensor([0.8, 0.0, 0.0])))
    editor.add_keyframe()
    editor.set_video_share(request.param)
    return editor


def apart(motion, poses):
    return max(
        float((getattr(motion, name) - torch.stack([getattr(pose, name) for pose in poses])).abs().max())
        for name in ("T_object_canonical", "T_world_object")
    )


@torch.no_grad()
def test_exported_motion_is_what_is_shown(pipeline, editor, tmp_path, monkeypatch):
    model, track = pipeline.model, editor.track
    shown = [editor.pose_at(min(1.0, float(time) / track.duration)) for time in track.frame_times()]
    assert len(shown) == 6
    assert apart(motions_by_name(model, track)["track"], shown) < 1e-4
    editor.save(tmp_path / "track.json")
    assert apart(track_motion(model, load_track(tmp_path / "track.json", model.skeleton)), shown) < 1e-4
    written = []
    monkeypatch.setattr(exports, "write_ply_sequence", lambda folder, frames, _: written.extend(frames))
    exports.export("all frames (PLY files)", model, editor, tmp_path, lambda share: None)
    for splats, pose in zip(written, shown, strict=True):
        assert torch.allclose(splats.means, posed_splats(model, pose).means, atol=1e-4)
