"""Finding pipelines: local, cached, downloaded; and the one line that each failure gives."""

import sys
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from bags_ns.priors import imagedream, zero123
from bags_ns.priors.loading import (
    DIFFUSERS_MODEL,
    SCHEDULER,
    PipelineLayout,
    find_pipeline,
    load_strictly,
    read_weights,
)

LAYOUT = PipelineLayout("Toy", "owner/toy", {"unet": DIFFUSERS_MODEL, "scheduler": SCHEDULER})
FILES = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]


def write_files(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


class FakeHub:
    """Stands in for `snapshot_download`: a cache and a remote repository, both as lists of files (None: absent)."""

    def __init__(self, root: Path, cached: list[str] | None, remote: list[str] | Exception):
        self.root, self.cached, self.remote = root, cached, remote
        self.calls: list[list[str] | None] = []

    def __call__(self, hub_id, local_files_only=False, allow_patterns=None):
        self.calls.append(allow_patterns)
        if local_files_only:
            if self.cached is None:
                raise LocalEntryNotFoundError("not cached\n(a long\nexplanation)")
            return str(write_files(self.root, self.cached))
        if isinstance(self.remote, Exception):
            raise self.remote
        return str(
            write_files(self.root, [name for name in self.remote if any(fnmatch(name, p) for p in allow_patterns)])
        )


@pytest.fixture
def hub(monkeypatch, tmp_path):
    def install(cached, remote):
        fake = FakeHub(tmp_path / "snapshot", cached, remote)
        (tmp_path / "snapshot").mkdir()
        monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
        return fake

    return install


def test_a_complete_folder_is_used_as_it_is(tmp_path):
    assert find_pipeline(str(write_files(tmp_path, FILES)), LAYOUT) == tmp_path


def test_older_weights_complete_a_folder_too(tmp_path):
    files = [name.replace(".safetensors", ".bin") for name in FILES]
    assert find_pipeline(str(write_files(tmp_path, files)), LAYOUT) == tmp_path


@pytest.mark.parametrize("absent", FILES)
def test_a_folder_that_lacks_a_part_is_told_which(tmp_path, absent):
    write_files(tmp_path, [name for name in FILES if name != absent])
    with pytest.raises(FileNotFoundError) as error:
        find_pipeline(str(tmp_path), LAYOUT)
    expected = f"{tmp_path} is not a complete Toy pipeline, it lacks {absent}; expected the layout of owner/toy"
    assert str(error.value) == expected


@pytest.mark.parametrize("source", ["/no/such/folder", "./toy", "toy", "a/b/c", "~/toy/x"])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(source, hub):
    fake = hub(None, FILES)
    with pytest.raises(FileNotFoundError, match=f"no folder {source}: give an existing folder or a hub id such as"):
        find_pipeline(source, LAYOUT)
    assert not fake.calls


def test_a_complete_cache_needs_no_network(hub):
    fake = hub(FILES, ConnectionError("no network"))
    assert find_pipeline("owner/toy", LAYOUT) == fake.root
    assert len(fake.calls) == 1


@pytest.mark.parametrize("cached", [None, FILES[:1]])
def test_what_the_cache_lacks_is_downloaded_in_safe_formats(hub, cached):
    fake = hub(cached, [*FILES, "unet/diffusion_pytorch_model.bin", "unet/remote_code.py"])
    assert find_pipeline("owner/toy", LAYOUT) == fake.root
    assert not list(fake.root.rglob("*.bin")) and not list(fake.root.rglob("*.py"))


def test_older_weights_are_downloaded_where_there_are_no_others(hub):
    fake = hub(None, [FILES[0], "unet/diffusion_pytorch_model.bin", FILES[2]])
    assert find_pipeline("owner/toy", LAYOUT) == fake.root


def test_no_network_is_one_line(hub):
    hub(None, LocalEntryNotFoundError("cannot reach the hub\nand more\nlines"))
    with pytest.raises(ConnectionError) as error:
        find_pipeline("owner/toy", LAYOUT)
    assert str(error.value) == (
        "cannot download owner/toy (LocalEntryNotFoundError): connect to the network once, "
        "or give a local folder with the Toy pipeline"
    )


def test_another_kind_of_repository_is_one_line(hub):
    hub(None, ["README.md"])
    with pytest.raises(FileNotFoundError, match="owner/toy is not a complete Toy pipeline .* lacks unet/config.json, "):
        find_pipeline("owner/toy", LAYOUT)


@pytest.mark.parametrize("prior", [zero123.Zero123Prior, imagedream.ImageDreamPrior])
@pytest.mark.parametrize("package", ["diffusers", "transformers"])
def test_a_missing_package_is_one_line(monkeypatch, tmp_path, prior, package):
    monkeypatch.setitem(sys.modules, "diffusers", ModuleType("diffusers"))  # quicker than the real one
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as error:
        prior.from_pretrained(str(tmp_path))
    name = prior.__name__.removesuffix("Prior")
    assert str(error.value) == f"the {name} prior needs the package {package}: pip install 'bags-ns[priors]'"


def test_weights_of_both_formats_read_the_same(tmp_path):
    weights = {"weight": torch.randn(3, 2), "bias": torch.randn(3)}
    for name in ("safe", "pickled"):
        (tmp_path / name).mkdir()
    save_file(weights, str(tmp_path / "safe" / "diffusion_pytorch_model.safetensors"))
    torch.save(weights, tmp_path / "pickled" / "diffusion_pytorch_model.bin")
    with torch.device("meta"):
        layer = nn.Linear(2, 3)
    for name in ("safe", "pickled"):
        load_strictly(layer, read_weights(tmp_path / name), name)
        torch.testing.assert_close(layer.weight, weights["weight"], check_device=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    "weights",
    [
        {"weight": torch.zeros(3, 2)},
        {"weight": torch.zeros(3, 2), "bias": torch.zeros(4)},
        {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "bias2": torch.zeros(3)},
    ],
)
def test_weights_that_do_not_fit_are_one_line(weights):
    with pytest.raises(ValueError, match="unet does not fit its config: 1 tensors are .*, first bias") as error:
        load_strictly(nn.Linear(2, 3), weights, "unet")
    assert "\n" not in str(error.value)
