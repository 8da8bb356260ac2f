"""PLY and SPZ: covariances survive the way through axes and files, renders of what is read back look the same."""

import numpy as np
import pytest
import torch
from scenes import blob, rendered_psnr

from bags_ns.animation.export_ply import FIELDS, read_ply, write_ply, write_ply_sequence
from bags_ns.animation.splats import Splats, splats_from_gaussians
from bags_ns.gaussians import Gaussians
from bags_ns.rig.transforms import quat_to_rotation


def test_axes_are_proper_rotations_that_give_the_covariances_back():
    gaussians = blob(500)
    splats = splats_from_gaussians(gaussians)
    assert torch.allclose(torch.det(quat_to_rotation(splats.quats)), torch.ones(500), atol=1e-5)
    assert torch.allclose(splats.gaussians().covars, gaussians.covars, atol=1e-7)


@pytest.mark.parametrize("kind", ["a ball", "a disc", "a needle", "a point"])
def test_degenerate_covariances_become_finite_splats(kind):
    scales = {"a ball": [1, 1, 1], "a disc": [1, 1, 0], "a needle": [1, 0, 0], "a point": [0, 0, 0]}[kind]
    covars = torch.diag(torch.tensor(scales, dtype=torch.float32) * 1e-2)[None]
    splats = splats_from_gaussians(Gaussians(torch.zeros(1, 3), covars, torch.ones(1), torch.ones(1, 3)))
    assert splats.quats.isfinite().all() and (splats.scales > 0).all()
    assert torch.allclose(splats.gaussians().covars, covars, atol=1e-9)


def test_a_ply_read_back_renders_the_same(tmp_path):
    gaussians = blob(2000)
    write_ply(tmp_path / "a.ply", splats_from_gaussians(gaussians))
    assert rendered_psnr(gaussians, read_ply(tmp_path / "a.ply").gaussians()) > 60
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_the_layout_is_inrias_in_the_eyes_of_other_readers(tmp_path):
    gsply = pytest.importorskip("gsply")
    splats = splats_from_gaussians(blob(50))
    write_ply(tmp_path / "a.ply", splats)
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header")[0].decode()
    assert header.count("property float") == len(FIELDS) and "binary_little_endian" in header
    data = gsply.plyread(tmp_path / "a.ply")
    assert np.allclose(data.means, splats.means.numpy()) and np.allclose(data.quats, splats.quats.numpy(), atol=1e-6)
    assert np.allclose(np.exp(data.scales), splats.scales.numpy(), rtol=1e-4)
    assert np.allclose(1 / (1 + np.exp(-data.opacities.ravel())), splats.opacities.numpy(), atol=1e-5)


def test_opaque_and_invisible_gaussians_stay_finite(tmp_path):
    splats = splats_from_gaussians(Gaussians(torch.zeros(2, 3), torch.eye(3).repeat(2, 1, 1), torch.tensor([0.0, 1.0]), torch.zeros(2, 3)))  # fmt: skip
    write_ply(tmp_path / "a.ply", splats)
    assert torch.allclose(read_ply(tmp_path / "a.ply").opacities, torch.tensor([0.0, 1.0]), atol=1e-5)


def test_a_sequence_replaces_an_earlier_longer_one(tmp_path):
    splats = splats_from_gaussians(blob(10))
    (tmp_path / "notes.txt").write_text("mine")
    assert write_ply_sequence(tmp_path, [splats] * 5) == 5
    assert write_ply_sequence(tmp_path, [splats] * 3) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(f"frame_{i:05d}.ply" for i in range(3)), "notes.txt"]


def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path):
    splats = splats_from_gaussians(blob(10))

    def frames():
        yield splats
        raise OSError("No space left on device")

    with pytest.raises(OSError):
        write_ply_sequence(tmp_path / "frames", frames())
    assert not list((tmp_path / "frames").iterdir())
    empty = Splats(*(value[:0] for value in vars(splats).values()))
    with pytest.raises(ValueError, match="no Gaussians"):
        write_ply(tmp_path / "a.ply", empty)
    assert not (tmp_path / "a.ply").exists() and len(list(tmp_path.iterdir())) == 1


def test_what_is_no_ply_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n")
    (tmp_path / "b.ply").write_text("hello")
    for name in ("a.ply", "b.ply"):
        with pytest.raises(ValueError, match=name):
            read_ply(tmp_path / name)


def test_an_spz_read_back_looks_alike_and_is_smaller(tmp_path):
    gsply = pytest.importorskip("gsply")
    from bags_ns.animation.export_spz import write_spz

    gaussians = blob(2000)
    splats = splats_from_gaussians(gaussians)
    write_spz(tmp_path / "a.spz", splats)
    write_ply(tmp_path / "a.ply", splats)
    assert (tmp_path / "a.spz").stat().st_size < 0.4 * (tmp_path / "a.ply").stat().st_size
    data = gsply.read_spz(tmp_path / "a.spz")
    columns = [torch.from_numpy(np.array(x)) for x in (data.means, data.quats, data.scales, data.opacities, data.sh0)]
    means, quats, scales, opacities, sh0 = columns
    again = Splats(means, quats, scales.exp(), opacities.sigmoid().flatten(), sh0 * 0.28209479 + 0.5)
    assert rendered_psnr(gaussians, again.gaussians()) > 35
