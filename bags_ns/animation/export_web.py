"""A folder that plays the animal in a browser: one page and one GLB, from any static web server.

The page draws with Spark and three.js, fetched by version from a content network; both do the skinning that the rig does
(linear blend, covariances included). A folder with the same packages, as npm installs them, can stand in for the network.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path

from bags_ns.animation.export_gltf import RiggedAnimal, write_gltf
from bags_ns.animation.joint_rotations import SampledMotion
from bags_ns.files import whole_file

THREE, SPARK = "0.180.0", "2.2.0"
"""Versions of the npm packages `three` and `@sparkjsdev/spark`."""
NETWORK = "https://cdn.jsdelivr.net/npm"
"""Serves npm packages by version."""


def import_map(packages: str | None = None) -> dict[str, str]:
    """Where the page finds its packages: on the network, or under the address of a node_modules folder."""
    three = f"{packages}/three" if packages else f"{NETWORK}/three@{THREE}"
    spark = f"{packages}/@sparkjsdev/spark" if packages else f"{NETWORK}/@sparkjsdev/spark@{SPARK}"
    return {
        "three": f"{three}/build/three.module.js",
        "three/addons/": f"{three}/examples/jsm/",
        "@sparkjsdev/spark": f"{spark}/dist/spark.module.js",
    }


def write_web(
    folder: Path,
    animal: RiggedAnimal,
    motions: Mapping[str, SampledMotion],
    *,
    title: str = "An animal",
    packages: str | None = None,
) -> Path:
    """Writes index.html and animal.glb into `folder`, each whole or not at all; returns the page.

    Args:
        folder: for any static web server; browsers do not load such pages from the file system.
        animal: canonical Gaussians and their rig.
        motions: by name; the page plays the first.
        title: of the page.
        packages: address of a node_modules folder, as the page sees it, instead of the network.
    """
    write_gltf(folder / "animal.glb", animal, motions, with_splats=True)
    page = Path(__file__).with_name("web_page.html").read_text(encoding="utf-8")
    page = page.replace("{{title}}", html.escape(title)).replace("{{imports}}", json.dumps(import_map(packages)))
    with whole_file(folder / "index.html") as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return folder / "index.html"
