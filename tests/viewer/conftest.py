"""An animal that needs no training: the seed points of a made-up clip, bones put onto them, and motion made up for these."""

import copy
import sys
import threading
from pathlib import Path

import pytest
import torch

from bags_ns import method_configs
from bags_ns.data.creatures import ClipSettings, write_creature_clip
from bags_ns.pipeline import BagsPipeline
from bags_ns.trainer import BagsTrainer

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests can be imported


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> BagsPipeline:
    folder: Path = tmp_path_factory.mktemp("animal")
    write_creature_clip(folder / "clip", 5, ClipSettings(num_frames=6, size=64, num_test_times=1, num_test_azimuths=2))
    config = copy.deepcopy(method_configs.bags_tiny.config)
    config.data = config.pipeline.datamanager.data = folder / "clip"
    config.output_dir, config.vis = folder, "tensorboard"
    config.pipeline.model.num_bones = 10
    config.set_timestamp()
    torch.manual_seed(0)
    trainer = BagsTrainer(config)
    trainer.setup()
    model = trainer.model
    model.bones.place(model.means.detach())
    model.bones_placed = True
    with torch.no_grad():
        model.bone_motion.table[..., :3].normal_(std=0.25)
        model.gauss_params["opacities"].zero_()  # .5: an untrained animal starts nearly transparent
    model.rebuild_skeleton()
    trainer.pipeline.eval()
    return trainer.pipeline


@pytest.fixture(scope="module")
def viewer(pipeline, tmp_path_factory):
    """nerfstudio's viewer on that animal, as ns-viewer starts it."""
    import socket

    from nerfstudio.configs.base_config import ViewerConfig
    from nerfstudio.viewer.viewer import Viewer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("run")
    config = ViewerConfig(websocket_host="127.0.0.1", websocket_port=port)
    viewer = Viewer(config, folder / "viewer.log", folder, pipeline, train_lock=threading.Lock())
    yield viewer
    viewer.viser_server.stop()
