"""Imports run one way: lower rooms do not know the upper ones, and heavy packages stay where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bags_ns"

LAYERS = [
    {
        "gaussians",
        "cameras",
        "schedule",
        "progress",
        "ffmpeg",
        "files",
        "rig",
        "losses",
        "metrics",
        "perceptual",
        "watch",
        "splatfacto",
    },
    {"rendering", "priors", "data", "animation", "rigidity", "dataparser_configs"},
    {"animal"},
    {"recurrence", "densification", "turned_outlines"},
    {"tracking"},
    {"model"},
    {"rigged", "bone_colors", "camera_paths", "first_look"},
    {"viewer"},
    {"pipeline"},
    {"evaluation", "unposed", "visualize", "trainer"},
    {"method_configs"},
    {"runs"},
    {"commands"},
    {"cli"},
]
"""Lowest first. A module may import from its own room and from lower layers; listed pairs are allowed within one layer."""
WITHIN_LAYER = {
    ("priors", "data"),
    ("losses", "rig"),
    ("metrics", "losses"),
    ("rig", "gaussians"),
    ("dataparser_configs", "data"),
    ("unposed", "evaluation"),
}

ONLY_IN = {
    "gsplat": {"rendering"},
    "diffusers": {"priors"},
    "transformers": {"priors", "data", "perceptual"},
    "viser": {"viewer"},
}
"""Packages that only these rooms may import."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(room: str) -> int:
    return next(index for index, rooms in enumerate(LAYERS) if room in rooms)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = room_of(path)
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "bags_ns" and len(parts) > 1 and (PACKAGE / parts[1]).with_suffix("").name != "__version__":
            other = parts[1]
            allowed = other == room or layer_of(other) < layer_of(room) or (room, other) in WITHIN_LAYER
            assert allowed, f"{room} imports {other}, which is not below it"
        if parts[0] in ONLY_IN:
            assert room in ONLY_IN[parts[0]], f"{parts[0]} belongs into {ONLY_IN[parts[0]]}, not into {room}"


def test_the_rig_knows_no_framework():
    for path in (PACKAGE / "rig").glob("*.py"):
        assert not {name.split(".")[0] for name in imported_modules(path)} & {"nerfstudio", "gsplat", "viser", "tyro"}
