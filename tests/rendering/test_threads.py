"""The numba rasterizer under threads, in forked children, and where the package's folder cannot be written to."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from rendering_scenes import gradients, make_cameras, make_gaussians, random_loss

import bags_ns
from bags_ns.gaussians import Gaussians
from bags_ns.rendering import render

Scene = tuple[Gaussians, torch.Tensor, torch.Tensor]


def make_scene(seed: int = 0) -> Scene:
    """Two views of a small scene."""
    return make_gaussians(300, seed=seed), *make_cameras(2, 70, 50)


def render_bytes(scene: Scene) -> bytes:
    """The images and all gradients, as bytes."""
    gaussians, viewmats, Ks = scene
    output = render(gaussians, viewmats, Ks, 70, 50, backend="numba")
    found = gradients(random_loss(output.rgb, output.alpha), gaussians)
    return b"".join(tensor.detach().numpy().tobytes() for tensor in (output.rgb, output.alpha, *found.values()))


def send_render(scene: Scene, connection: Connection) -> None:
    """What a forked child does."""
    connection.send_bytes(render_bytes(scene))


def test_every_thread_count_gives_the_same_bits() -> None:
    scene, results = make_scene(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(render_bytes(scene))
    assert results[0] == results[1] == results[2]


def test_concurrent_callers_get_the_same_bits() -> None:
    scenes = [make_scene(seed) for seed in range(3)]
    torch.set_num_threads(2)
    expected = [render_bytes(scene) for scene in scenes]
    with ThreadPoolExecutor(3) as callers:
        for _ in range(5):
            assert list(callers.map(render_bytes, scenes)) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_renders() -> None:
    scene = make_scene()
    torch.set_num_threads(2)
    expected = render_bytes(scene)  # the parent's pool is in use before the fork
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_render, args=(scene, sender), daemon=True)
    child.start()
    answered = receiver.poll(30)
    try:
        assert answered, "the child hangs"
        assert receiver.recv_bytes() == expected
    finally:
        child.kill()
        child.join()


def test_compiled_kernels_go_to_the_users_cache_when_the_package_is_read_only(tmp_path: Path) -> None:
    package, user_cache = tmp_path / "site" / "bags_ns", tmp_path / "cache"
    shutil.copytree(Path(bags_ns.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "rendering" / "__pycache__").touch()  # no folder can be made here, not even by root
    code = (
        "import numpy; from bags_ns.rendering import numba_binning as b; "
        "print(b.__file__, b.depth_order(numpy.array([2.0, 1.0], numpy.float32)))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {
        "PYTHONPATH": str(package.parent),
        "XDG_CACHE_HOME": str(user_cache),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(package)) and done.stdout.endswith("[1 0]\n")
    assert list(user_cache.rglob("*depth_order*.nbi"))
