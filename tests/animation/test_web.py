"""The exported page: its packages are named by version, and in a real browser it draws, moves in time and poses."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from gltf_reader import Glb
from test_gltf import made_up_animal, walking_motion

from bags_ns.animation.export_gltf import write_gltf
from bags_ns.animation.export_web import SPARK, THREE, write_web


def test_the_page_names_its_packages_by_version(tmp_path):
    animal = made_up_animal()
    page = write_web(tmp_path / "web", animal, {"walk": walking_motion(animal.skeleton)}, title="<fox>")
    text = page.read_text()
    assert f"three@{THREE}/" in text and f"spark@{SPARK}/" in text and "&lt;fox&gt;" in text and "{{" not in text
    assert sorted(p.name for p in page.parent.iterdir()) == ["animal.glb", "index.html"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def chromium():
    found = os.environ.get("BAGS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no chromium on the PATH (or in BAGS_CHROMIUM): the page is opened in a real browser")
    if not shutil.which("npm"):
        pytest.skip("no npm on the PATH: it installs what the page draws with")
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of an exported page with npm's packages beside it, and its address on a local server."""
    folder = tmp_path_factory.mktemp("page")
    packages = [f"three@{THREE}", f"@sparkjsdev/spark@{SPARK}", "puppeteer-core@24"]
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", *packages]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install {packages}: {installed.stderr.strip()[-200:]}")
    animal = made_up_animal()
    write_web(folder, animal, {"walk": walking_motion(animal.skeleton)}, packages="./node_modules")
    write_gltf(folder / "proxy.glb", animal, {"walk": walking_motion(animal.skeleton)})
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def test_the_page_plays_and_poses_in_a_browser(chromium, served):
    import cv2

    folder, url = served
    shutil.copy(Path(__file__).with_name("drive_page.mjs"), folder)
    driven = subprocess.run(
        ["node", "drive_page.mjs", chromium, url, "."],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert driven.returncode == 0, driven.stderr[-2000:]
    seen = json.loads(driven.stdout.strip().splitlines()[-1])
    assert seen["errors"] == [] and seen["status"] == "" and seen["framesPerSecond"] > 0
    pictures = {path.stem: cv2.imread(str(path)).astype(float) for path in folder.glob("*.png")}
    assert (pictures["start"].min(axis=2) < 200).mean() > 0.02  # an animal on white
    changes = {name: np.abs(picture - pictures["start"]).mean() for name, picture in pictures.items()}
    assert changes["later"] > 1 and changes["start_again"] < 0.2 * changes["later"]
    assert changes["posed"] > 0.2 and changes["reset"] < 0.5 * changes["posed"]
    theirs, _ = Glb(folder / "proxy.glb").moved("mesh", 0, 0.25)
    y_up = theirs[::20] @ np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    assert np.abs(np.array(seen["vertices"]) - y_up).max() < 1e-4  # three.js moves the mesh of a GLB as it is meant
