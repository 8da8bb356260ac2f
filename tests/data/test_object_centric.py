"""Crops, constant camera and path together explain where things are seen in a plain video."""

import math

import numpy as np
import pytest
from drawn_clips import FOV_DEG, HEIGHT, WIDTH, draw, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from bags_ns.data.dataparser import AnimalVideoDataParserConfig
from bags_ns.data.images import crop_square, read_rgba
from bags_ns.data.object_centric import crop_boxes, object_centric_view, smooth_in_time
from bags_ns.data.silhouettes import Silhouettes, choose_canonical, measure_silhouettes

FOCAL = 0.5 * WIDTH / math.tan(0.5 * math.radians(FOV_DEG))


def silhouettes_of(path, size=(1.0, 0.6)):
    """Exact measures of a box of `size` world units that moves on `path` [T 3] before the camera (OpenCV axes)."""
    depth = path[:, 2:]
    centres = path[:, :2] / depth * FOCAL + (WIDTH / 2, HEIGHT / 2)
    sizes = np.array([size]) / depth * FOCAL
    boxes = np.concatenate([np.floor(centres - sizes / 2), np.ceil(centres + sizes / 2)], axis=1).astype(np.int64)
    count = len(path)
    return Silhouettes(
        areas=(sizes.prod(axis=1)).astype(np.int64),
        centroids=centres,
        boxes=boxes,
        robust_sizes=sizes,
        touches_border=np.zeros(count, bool),
        sharpness=np.ones(count),
        outlines=np.ones(count),
        image_sizes=np.tile([[WIDTH, HEIGHT]], (count, 1)),
    )


def straight_path(count=30):
    return np.linspace([-0.4, 0.1, 2.0], [0.5, -0.1, 3.0], count)


def project(point, camera_to_world, focal, cx, cy):
    x, y, z = (point - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]
    return np.array([cx + focal * x / -z, cy - focal * y / -z])


@pytest.mark.parametrize("elevation_deg", [0.0, 20.0])
@pytest.mark.parametrize("canonical", [0, 11, 29])
def test_points_of_the_animal_reproject_through_the_crops(elevation_deg, canonical):
    path = straight_path()
    view = object_centric_view(silhouettes_of(path), canonical, (WIDTH, HEIGHT), FOV_DEG, elevation_deg)
    offset = np.array([0.0, 0.2, -0.1])  # a point of the animal, in world axes
    rotation = view.camera_to_world[:3, :3] * (1, -1, -1)  # OpenCV camera axes to the world
    for index, centre in enumerate(path):
        x, y, z = centre + offset @ rotation
        truth = np.array([WIDTH / 2 + FOCAL * x / z, HEIGHT / 2 + FOCAL * y / z])
        left, top, side = view.crop_boxes[index]
        seen = project(
            view.root_translations[index] + offset, view.camera_to_world, *view.crop_intrinsics(index, crop_size=64)
        )
        assert np.abs(seen * side / 64 + (left, top) - truth).max() < 1e-6


def test_the_canonical_frame_is_at_the_origin_and_one_unit_long():
    view = object_centric_view(silhouettes_of(straight_path()), 7, (WIDTH, HEIGHT), FOV_DEG, 0.0)
    assert (view.root_translations[7] == 0).all()
    assert np.allclose(view.camera_to_world[:3, :3], [[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # looks along -x, z up
    assert view.camera_to_world[0, 3] == pytest.approx(straight_path()[7, 2])
    walked = straight_path()[-1] - straight_path()[7]
    # right of the camera is +y, down is -z, away is -x
    assert np.allclose(view.root_translations[-1], (-walked[2], walked[0], -walked[1]))


def test_an_animal_that_turns_does_not_recede():
    """The area of its silhouette shrinks, its height does not."""
    turning = silhouettes_of(np.tile([[0.0, 0.0, 2.5]], (30, 1)))
    width = np.linspace(1, 0.3, 30)
    turning.robust_sizes[:, 0] *= width
    turning.areas[:] = turning.areas * width
    view = object_centric_view(turning, 0, (WIDTH, HEIGHT), FOV_DEG, 0.0)
    assert np.abs(view.root_translations).max() < 1e-9


@st.composite
def box_sequences(draw_from):
    count = draw_from(st.integers(1, 40))
    corner = st.integers(-20, 300)
    extent = st.integers(1, 200)
    rows = draw_from(st.lists(st.tuples(corner, corner, extent, extent), min_size=count, max_size=count))
    return np.array([(x, y, x + width, y + height) for x, y, width, height in rows], np.int64)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(box_sequences())
def test_crops_never_cut_a_silhouette(boxes):
    crops = crop_boxes(boxes)
    assert (crops[:, :2] <= boxes[:, :2]).all()
    assert (crops[:, :2] + crops[:, 2:] >= boxes[:, 2:]).all()


def test_crops_of_a_jumpy_outline_are_smooth_with_a_margin():
    jitter = np.random.default_rng(0).integers(-4, 5, (60, 4))
    boxes = np.array([[40, 50, 140, 110]]) + jitter
    crops = crop_boxes(boxes)
    assert np.abs(np.diff(crops[:, 2])).max() <= 2
    assert 110 <= crops[:, 2].mean() <= 120


def test_crops_past_the_border_are_transparent_there():
    rgba = np.full((20, 30, 4), 255, np.uint8)
    square = crop_square(rgba, -5, 10, 16)
    assert square[:10, 5:].all()
    assert not square[:, :5].any()
    assert not square[10:].any()


def test_smoothing_keeps_straight_lines():
    line = np.linspace([0.0, 5.0], [3.0, -2.0], 17)
    assert np.allclose(smooth_in_time(line, 2.5), line)
    assert np.allclose(smooth_in_time(line[:1], 2.5), line[:1])


def rgba(centre, axes):
    return np.dstack(draw(centre, axes))


def test_canonical_is_large_whole_and_sharp():
    frames = [rgba((80, 60), (30, 20))] * 7
    assert choose_canonical(measure_silhouettes(iter(frames))) == 3  # all alike: the middle
    frames[1] = rgba((80, 60), (50, 30))
    assert choose_canonical(measure_silhouettes(iter(frames))) == 1
    frames[5] = rgba((10, 60), (70, 50))  # larger, but cut by the border
    assert choose_canonical(measure_silhouettes(iter(frames))) == 1
    frames[1] = frames[1].copy()
    frames[1][..., :3] = 100  # larger, but nothing can be made out
    assert choose_canonical(measure_silhouettes(iter(frames))) != 1


def walker(legs):
    """A box on two legs with their left edges at these columns."""
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[20:60, 20:120] = True
    for left in legs:
        inside[60:95, left : left + 8] = True
    return np.dstack([np.full((HEIGHT, WIDTH, 3), 100), 255 * inside]).astype(np.uint8)


def test_canonical_has_its_limbs_apart():
    """Where they hide each other, one leg's Gaussians would have to be two legs in every other frame."""
    frames = [walker((30, 38))] * 9
    frames[6] = walker((30, 100))
    measured = measure_silhouettes(iter(frames))
    assert choose_canonical(measured) == 6 and measured.areas[6] == measured.areas[0]


def test_a_ragged_edge_is_no_limb():
    smooth, apart = (walker(legs).repeat(4, 0).repeat(4, 1) for legs in ((30, 38), (30, 100)))
    ragged = smooth.copy()
    ragged[79, 80:480:2, 3] = 255
    lengths = measure_silhouettes([ragged, smooth, apart]).outlines
    assert lengths[2] > lengths[1] + 0.8 and abs(lengths[0] - lengths[1]) < 0.15


def test_measures_of_an_ellipse():
    one = measure_silhouettes([rgba((70.0, 55.0), (32, 18))])
    assert np.abs(one.centroids[0] - (70, 55)).max() < 0.6
    assert np.abs(one.boxes[0] - (38, 37, 102, 73)).max() <= 1
    assert one.areas[0] == pytest.approx(
        math.pi * 32 * 18, rel=0.06
    )  # the drawing covers every pixel that the outline touches
    assert np.all(one.robust_sizes[0] <= (64, 36))
    assert np.all(one.robust_sizes[0] >= (58, 32))


def test_a_dot_on_the_animal_is_seen_where_the_parser_says(tmp_path):
    """From drawn frames through files to nerfstudio's cameras: the centre of the animal lies on the dot drawn there."""
    path = straight_path(16)
    frames = []
    for x, y, z in path:
        centre = (WIDTH / 2 + FOCAL * x / z, HEIGHT / 2 + FOCAL * y / z)
        frames.append(draw(centre, (0.35 * FOCAL / z, 0.2 * FOCAL / z)))
    config = AnimalVideoDataParserConfig(data=write_folder(tmp_path / "in", frames), cache_dir=tmp_path, crop_size=128)
    outputs = config.setup().get_dataparser_outputs("train")
    info = outputs.metadata["clip"]
    for index, name in enumerate(outputs.image_filenames):
        image = read_rgba(name).astype(int)
        assert image.shape == (128, 128, 4)
        red = (image[..., 0] > 190) & (image[..., 1] < 80) & (image[..., 3] > 200)
        dot = np.argwhere(red).mean(axis=0)[::-1] + 0.5
        camera = outputs.cameras[index]
        seen = project(
            info.root_translations[index].numpy(),
            camera.camera_to_worlds.numpy(),
            *(float(value) for value in (camera.fx, camera.cx, camera.cy)),
        )
        assert np.abs(seen - dot).max() < 2.0
    assert not info.root_translations[info.canonical_index].any()
