"""`bags render`, `animate` and `export` on a short run: what films show, and bad input in one line that leaves no file."""

import copy
import json
import resource
import sys

import av
import numpy as np
import pytest
import torch
from animation.gltf_reader import Glb
from tiny_runs import run, trainer_on

from bags_ns.camera_paths import load_camera_path
from bags_ns.cli import main
from bags_ns.data.video import read_video
from bags_ns.rigged import video_track
from bags_ns.runs import open_run
from bags_ns.visualize import beside_source

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 48


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory):
    """Holds a short run, one that was never saved, and files for them, good and bad."""
    folder = tmp_path_factory.mktemp("space")
    for name, steps in (("run", 60), ("unsaved", 0)):
        trainer = trainer_on(clip, folder / name, steps=60)
        run(trainer, range(steps))
        if steps:
            trainer.save_checkpoint(steps - 1)
    video_track(open_run(folder / "run", test_mode="inference").model).save(folder / "track.json")
    track = json.loads((folder / "track.json").read_text())
    still = [{"time": 0, "rotations": {"bone_01": [1, 0, 0, 0]}}]
    written = {
        "shared": {**track, "video_share": 1.0},
        "followed": {**track, "keyframes": still, "video_share": 1.0},
        "video": {**track, "keyframes": still, "video_share": 1.0},
        "still": {**track, "keyframes": still, "duration": 0.5},
        "unknown": {**track, "keyframes": [{"time": 0, "rotations": {"wing": [1, 0, 0, 0]}}]},
        "backwards": {**track, "keyframes": track["keyframes"][::-1]},
        "foreign": {**track, "model": {"joints": ["a", "b"], "parents": [-1, 0]}, "keyframes": [{"time": 0, "rotations": {}}]},
        "path": camera_path([0, 1], [0, 0.8]),
        "timeless": camera_path([0, 0.5, 1]),
        "late": camera_path([0, 1], [0, 1.5]),
        "fisheye": {**camera_path([0, 1]), "camera_type": "fisheye"},
        "empty": camera_path([]),
        "flat": {**camera_path([0]), "camera_path": [{"camera_to_world": [1, 0], "fov": 40}]},
        "list": [1, 2],
    }  # fmt: skip
    for name, document in written.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    (folder / "broken.json").write_text("{")
    for name in ("damaged", "torn"):
        trainer = trainer_on(clip, folder / name, steps=60)
        trainer.save_checkpoint(0)
    (config,) = folder.glob("damaged/**/config.yml")
    config.write_text("method: [")
    (saved,) = folder.glob("torn/**/*.ckpt")
    saved.write_bytes(saved.read_bytes()[:50_000])
    return folder


def camera_path(azimuths, times=None):
    """As nerfstudio's viewer writes it: cameras round the animal at azimuths in radians, and the times that they show."""
    frames = []
    for index, azimuth in enumerate(azimuths):
        c, s = np.cos(azimuth), np.sin(azimuth)
        matrix = [[-s, 0, c, 2 * c], [c, 0, s, 2 * s], [0, 1, 0, 0], [0, 0, 0, 1]]
        frames.append({"camera_to_world": np.array(matrix).flatten().tolist(), "fov": 40.0, "aspect": 1.0})
        if times is not None:
            frames[-1]["render_time"] = times[index]
    size = {"render_height": SIZE, "render_width": SIZE, "fps": 5, "seconds": 1}
    return {"camera_type": "perspective", **size, "camera_path": frames}


def bags(monkeypatch, folder, *words):
    """Runs a command in `folder`; its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["bags", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return 0


def film(path):
    return np.stack([frame.astype(float) for frame in read_video(path)])


def test_a_camera_path_is_filmed_at_its_times_and_rate(folder, monkeypatch):
    words = ("render", "--load-config", "run", "--camera-path", "path.json", "--output-dir")
    assert bags(monkeypatch, folder, *words, "along") == 0
    assert bags(monkeypatch, folder, *words, "slow", "--slow-motion", 4) == 0
    short, slow = film(folder / "along/camera_path.mp4"), film(folder / "slow/camera_path.mp4")
    assert len(short) == 2 and len(slow) == 5 and short.shape[1:] == (SIZE, SIZE, 3)
    assert (folder / "along/camera_path.png").is_file()
    assert np.abs(short[0] - slow[0]).mean() < 2 and np.abs(short[-1] - slow[-1]).mean() < 2
    assert np.abs(short[0] - short[1]).mean() > 4
    with av.open(str(folder / "slow/camera_path.mp4")) as container:
        assert container.streams.video[0].average_rate == 5


def test_a_slowed_path_goes_round_between_its_cameras(folder):
    path = load_camera_path(folder / "path.json").slowed(2.0)
    halfway = load_camera_path(folder / "timeless.json")
    assert torch.allclose(path.times, torch.tensor([0, 0.4, 0.8])) and halfway.times.tolist() == [0, 0.5, 1]
    turns = path.cameras.camera_to_worlds[1, :, :3], halfway.cameras.camera_to_worlds[1, :, :3]
    assert torch.allclose(turns[0], turns[1].float(), atol=1e-5)
    assert torch.allclose(path.cameras.fx, halfway.cameras.fx.float())


def test_a_track_is_played_on_a_turntable(folder, monkeypatch):
    words = ("render", "--load-config", "run", "--size", SIZE, "--num-frames", 2, "--fps", 24)
    for name, track in (("video", ()), ("shared", ("--track", "shared.json")), ("still", ("--track", "still.json"))):
        assert bags(monkeypatch, folder, *words, "--output-dir", name, *track, "--slow-motion", 2) == 0
    films = {name: film(folder / f"{name}/turntable.mp4") for name in ("video", "shared", "still")}
    assert all(len(frames) == 4 for frames in films.values())
    apart = {name: np.abs(films[name] - films["video"]).mean() for name in ("shared", "still")}
    # One blends in all of the video's motion, one none of it; the codec makes of a rounded pixel a few tenths of a level.
    assert apart["still"] > 1 and apart["shared"] < apart["still"] / 8


@pytest.mark.parametrize(
    "kind, options, count", [("source", (), 6), ("bones", ("--num-frames", 4), 4), ("bones", (), 12)]
)
def test_the_clip_is_filmed_beside_its_video_and_in_its_bones_colours(folder, monkeypatch, kind, options, count):
    words = ("render", "--load-config", "run", "--kind", kind, "--size", SIZE, "--output-dir", kind)
    assert bags(monkeypatch, folder, *words, *options) == 0
    assert sorted(p.name for p in (folder / kind).iterdir()) == [f"{kind}.mp4", f"{kind}.png"]
    assert len(film(folder / kind / f"{kind}.mp4")) == count


def test_frames_of_several_sizes_are_filmed_in_the_middle_of_white(folder):
    pipeline = open_run(folder / "run").pipeline
    large = pipeline.datamanager.train_image(0)
    small, image = copy.deepcopy(large[0]), large[1][::2, ::2]
    small.rescale_output_resolution(0.5)
    pictures = list(beside_source(pipeline.model, [large, (small, image)], 64, 64))
    assert [picture.shape for picture in pictures] == [(64, 3 * 64, 3)] * 2
    for index in range(3):
        view = pictures[1][:, 64 * index : 64 * (index + 1)]
        inside = view[16:48, 16:48]
        assert (inside < 250).any() and (255 - view.astype(int)).sum() == (255 - inside.astype(int)).sum()


def test_splats_are_exported_still_and_as_a_sequence(folder, monkeypatch):
    words = ("export", "ply", "--load-config", "run", "--output-dir")
    assert bags(monkeypatch, folder, *words, "ply", "--time", 0.5) == 0
    assert bags(monkeypatch, folder, *words, "sequence", "--sequence") == 0
    assert bags(monkeypatch, folder, "export", "spz", "--load-config", "run", "--output", "a.spz") == 0
    assert [p.name for p in (folder / "ply").iterdir()] == ["time_0.5000.ply"]
    assert [p.name for p in sorted((folder / "sequence").iterdir())] == [f"frame_{index:05d}.ply" for index in range(6)]
    assert (folder / "a.spz").stat().st_size > 1000


@pytest.mark.parametrize("file, name", [("followed", "followed"), ("video", "track")])
def test_a_track_is_exported_with_its_share_of_the_videos_motion(folder, monkeypatch, file, name):
    """All of it: both animations of the file are the video's."""
    words = ("export", "gltf", "--load-config", "run", "--track", f"{file}.json", "--output", f"{file}.glb")
    assert bags(monkeypatch, folder, *words) == 0
    glb = Glb(folder / f"{file}.glb")
    assert [animation["name"] for animation in glb.json["animations"]] == [name, "video"]
    for time in np.linspace(0, 5 / 24, 6):
        assert np.abs(glb.worlds(0, time) - glb.worlds(1, time)).max() < 1e-4


BAD = {
    "no run": ("animate --load-config nowhere --track track.json", "nowhere holds no trained run"),
    "no run, rendered": ("render --load-config nowhere", "nowhere holds no trained run"),
    "no run to take from": ("animate --load-config run --motion-from nowhere", "nowhere holds no trained run"),
    "no checkpoint": ("export gltf --load-config unsaved --output out/a.glb", "holds no checkpoint"),
    "no checkpoint, rendered": ("render --load-config unsaved --output-dir out", "holds no checkpoint"),
    "damaged config": ("export spz --load-config damaged --output out/a.spz", "is damaged"),
    "torn checkpoint": ("animate --load-config torn --track track.json --output-dir out", "is damaged"),
    "no track": ("animate --load-config run --track nothing.json --output-dir out", "nothing.json"),
    "no motion": ("animate --load-config run --output-dir out", "give either --track FILE or --motion-from RUN"),
    "another model's": ("animate --load-config run --track foreign.json --output-dir out", "made for another model"),
    "another model's, rendered": ("render --load-config run --track foreign.json --output-dir out", "another model"),
    "another model's, exported": ("export ply --load-config run --track foreign.json --output-dir out", "another model"),
    "another model's, on a page": ("export web --load-config run --track foreign.json --output-dir out", "another model"),
    "unknown joint": ("animate --load-config run --track unknown.json --output-dir out", "unknown joint 'wing'"),
    "unknown joint, GLB": ("export gltf --load-config run --track unknown.json --output out/a.glb", "unknown joint"),
    "backwards": ("render --load-config run --track backwards.json --output-dir out", "times must ascend"),
    "backwards, exported": ("export ply --load-config run --track backwards.json --output-dir out", "must ascend"),
    "not a track": ("animate --load-config run --track path.json --output-dir out", "not a pose track"),
    "not JSON": ("animate --load-config run --track broken.json --output-dir out", "broken.json is not JSON"),
    "time": ("export spz --load-config run --output out/a.spz --time -1", "--time goes from 0"),
    "no influences": ("export gltf --load-config run --output out/a.glb --influences 0", "at least one bone"),
    "no path": ("render --load-config run --camera-path nothing.json --output-dir out", "nothing.json"),
    "path not JSON": ("render --load-config run --camera-path broken.json --output-dir out", "is not JSON"),
    "not a path": ("render --load-config run --camera-path track.json --output-dir out", "not a camera path"),
    "path a list": ("render --load-config run --camera-path list.json --output-dir out", "not a camera path"),
    "path empty": ("render --load-config run --camera-path empty.json --output-dir out", "not a camera path"),
    "path flat": ("render --load-config run --camera-path flat.json --output-dir out", "not a camera path"),
    "path late": ("render --load-config run --camera-path late.json --output-dir out", "render_time goes from 0"),
    "path fisheye": ("render --load-config run --camera-path fisheye.json --output-dir out", "only perspective"),
    "path and number": ("render --load-config run --camera-path path.json --num-frames 3 --output-dir out", "--num-frames"),
    "source and track": ("render --load-config run --kind source --track track.json --output-dir out", "--kind source"),
    "source and number": ("render --load-config run --kind source --num-frames 4 --output-dir out", "--num-frames"),
    "no size": ("render --load-config run --size 0 --output-dir out", "--size must be at least"),
    "no size, animated": ("animate --load-config run --track track.json --size 0 --output-dir out", "--size must be"),
    "no frames": ("render --load-config run --num-frames 0 --output-dir out", "--num-frames must be at least 1"),
    "no rate": ("render --load-config run --fps 0 --output-dir out", "--fps must lie above 0"),
    "slow": ("render --load-config run --slow-motion 0 --output-dir out", "--slow-motion goes from 1"),
}  # fmt: skip
"""Words of a command, and what its one line says."""


@pytest.mark.parametrize("words, said", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_leaves_no_file(folder, monkeypatch, capsys, words, said):
    assert bags(monkeypatch, folder, *words.split()) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("bags: ") and said in lines[-1] and not any("Traceback" in line for line in lines)
    assert not (folder / "out").exists()


FULL = (
    "animate --load-config run --track track.json --output-dir out --size 48",
    "animate --load-config run --motion-from run --save-track out/track.json --output-dir out --size 48",
    "render --load-config run --output-dir out --size 48 --num-frames 3",
    "export ply --load-config run --output-dir out",
    "export ply --load-config run --output-dir out --sequence",
    "export gltf --load-config run --output out/a.glb",
    "export spz --load-config run --output out/a.spz",
    "export web --load-config run --output-dir out",
)


@pytest.mark.parametrize("words", FULL)
def test_a_full_disk_is_one_line_and_leaves_no_file(folder, monkeypatch, capsys, words):
    """Full in earnest, for every library that writes: files may not grow beyond a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
    try:
        code = bags(monkeypatch, folder, *words.split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 1 and lines[-1].startswith("bags: ")
    assert not [path for path in (folder / "out").rglob("*") if path.is_file()]
