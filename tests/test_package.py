"""The built wheel holds the package, its data and its entry points, and works from where it is installed."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, since a build leaves folders in the tree; without isolation, which would need a network."""
    source = tmp_path_factory.mktemp("source")
    files = ["pyproject.toml", "README.md", "LICENSE", "bags_ns"]
    subprocess.run(["cp", "-r", *[str(ROOT / name) for name in files], str(source)], check=True)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", str(target)]
    subprocess.run(command, cwd=source, check=True, timeout=120)
    (built,) = target.glob("*.whl")
    return built


def test_wheel_holds_package_data_and_entry_points(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(n for n in names if n.endswith("entry_points.txt"))
        text = archive.read(entry_points).decode()
    assert any(name.startswith("bags_ns/priors/weights/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    for group in ("nerfstudio.method_configs", "nerfstudio.dataparser_configs", "console_scripts"):
        assert f"[{group}]" in text


def test_an_installed_wheel_works_away_from_the_sources(wheel, tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(site), str(wheel)], check=True
    )
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import bags_ns; from bags_ns import method_configs as m; "
        "print(bags_ns.__file__, m.bags.config.method_name)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(site) in result.stdout and result.stdout.strip().endswith("bags")
