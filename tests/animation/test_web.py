"""The exported page: its packages are named by version, and in a real browser it draws, moves in time and poses."""

import cv2
import numpy as np
import page
import pytest
from gltf_reader import Glb
from test_gltf import made_up_animal, walking_motion

from bags_ns.animation.export_gltf import write_gltf
from bags_ns.animation.export_web import SPARK, THREE, write_web


def test_the_page_names_its_packages_by_version(tmp_path):
    animal = made_up_animal()
    index = write_web(tmp_path / "web", animal, {"walk": walking_motion(animal.skeleton)}, title="<fox>")
    text = index.read_text()
    assert f"three@{THREE}/" in text and f"spark@{SPARK}/" in text and "&lt;fox&gt;" in text and "{{" not in text
    assert sorted(p.name for p in index.parent.iterdir()) == ["animal.glb", "index.html"]


@pytest.fixture(scope="module")
def chromium():
    try:
        return page.find_chromium()
    except LookupError as missing:
        pytest.skip(str(missing))


def test_the_page_plays_and_poses_in_a_browser(chromium, tmp_path):
    animal = made_up_animal()
    write_web(tmp_path, animal, {"walk": walking_motion(animal.skeleton)}, packages="./node_modules")
    write_gltf(tmp_path / "proxy.glb", animal, {"walk": walking_motion(animal.skeleton)})
    try:
        with page.served(tmp_path) as url:
            seen = page.drive(chromium, tmp_path, url, [0.25])
    except LookupError as missing:
        pytest.skip(str(missing))
    assert seen["errors"] == [] and seen["status"] == "" and seen["framesPerSecond"] > 0
    pictures = {path.stem: cv2.imread(str(path)).astype(float) for path in tmp_path.glob("*.png")}
    assert (pictures["start"].min(axis=2) < 200).mean() > 0.02  # an animal on white
    changes = {name: np.abs(picture - pictures["start"]).mean() for name, picture in pictures.items()}
    assert changes["later"] > 1 and changes["start_again"] < 0.2 * changes["later"]
    assert changes["posed"] > 0.2 and changes["reset"] < 0.5 * changes["posed"]
    theirs, _ = Glb(tmp_path / "proxy.glb").moved("mesh", 0, 0.25)
    assert np.abs(np.array(seen["vertices"][0]) - theirs[::20]).max() < 1e-4  # three.js moves the mesh as it is meant
