"""How fast the viewer renders while a joint is dragged: the model's own rate, and what a page in Chromium gets.

python benchmarks/viewer_rate.py bags-demo

The model's rate is taken as the viewer renders: on a thread of its kind, traced for interruptions, a joint turned before
every frame. It is given in frames per second of the clock and of the processor, which others' work slows less, and beside
the bare renders of the same posed Gaussians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig, ViewerConfig
from nerfstudio.utils import writer
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer_legacy.server.viewer_utils import SetTrace
from rich.console import Console

from bags_ns.files import write_json
from bags_ns.rig.transforms import so3_exp
from bags_ns.runs import open_run
from bags_ns.viewer.controls import AnimalControls
from bags_ns.visualize import orbit_view

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "viewer"))


class PageThread(RenderStateMachine):
    """Runs something as the viewer's own threads do."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(None, 10.0, None)  # type: ignore[arg-type]
        self._work = work

    def run(self) -> None:
        with torch.no_grad(), SetTrace(self.check_interrupt):
            self._work()


@dataclass
class ViewerRate:
    """Frames a second while a joint is dragged."""

    load_config: Annotated[Path, tyro.conf.Positional]
    """A trained run."""
    num_gaussians: int = 10_000
    """The run's Gaussians are repeated or thinned out to this number."""
    size: int = 256
    """Side of the model's own pictures, in pixels."""
    repeats: int = 60
    """Frames timed; the median counts."""
    page_seconds: float = 10.0
    """How long a page is watched; 0 opens none."""
    output: Path | None = None
    """JSON file for the figures."""

    def measure(self) -> dict[str, float | str]:
        """The figures."""
        pipeline = open_run(self.load_config).pipeline
        model = pipeline.model
        rows = torch.arange(self.num_gaussians, device=model.device) * len(model.means) // self.num_gaussians
        for parameter in model.gauss_params.values():
            parameter.data = parameter.data[rows]
        with tempfile.TemporaryDirectory() as folder:
            # As in ns-viewer: nerfstudio chooses the size of moving pictures by the speeds that are written here.
            writer.setup_local_writer(LoggingConfig(local_writer=LocalWriterConfig(enable=False)), max_iter=1)
            config = ViewerConfig(websocket_host="127.0.0.1")
            viewer = Viewer(config, Path(folder) / "viewer.log", Path(folder), pipeline, train_lock=threading.Lock())
            controls = pipeline.animal_controls
            device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
            figures: dict[str, float | str] = {"device": device, "threads": torch.get_num_threads()}
            figures |= self._model_rate(controls)
            if self.page_seconds:
                figures |= self._page_rate(viewer, controls, Path(folder))
            viewer.viser_server.stop()
        return figures

    def _model_rate(self, controls: AnimalControls) -> dict[str, float | str]:
        model = controls._model
        camera = orbit_view(0.5, 0.2, 2.0, model.means.mean(0).detach(), self.size).to(model.device)
        posed = model.posed_gaussians(controls.editor.pose_at(0.0))
        white = torch.ones(3, device=model.device)

        def frame() -> None:
            turn_a_joint(controls)
            model.get_outputs_for_camera(camera)["rgb"].cpu()

        def bare() -> None:
            model.render_gaussians(posed, camera, white, with_depth=True).rgb.cpu()

        figures: dict[str, float | str] = {}
        for name, work in (("model", frame), ("bare_render", bare)):
            clock, processor = timed_on_a_page_thread(work, self.repeats)
            figures[f"{name}_fps"] = 1 / clock
            figures[f"{name}_fps_of_processor_time"] = 1 / processor
        return figures

    def _page_rate(self, viewer: Viewer, controls: AnimalControls, folder: Path) -> dict[str, float | str]:
        from browser import Browser, find_chromium

        chromium = find_chromium()
        if chromium is None:
            return {"page": "no chromium on the PATH (or in BAGS_CHROMIUM)"}
        browser = Browser(chromium, folder / "browser")
        try:
            browser.open(f"http://127.0.0.1:{viewer.viser_server.get_port()}")
            browser.wait_for("!!document.querySelector('canvas[data-engine]')")
            while controls.renders.shown is None:
                time.sleep(0.1)
            time.sleep(5)  # until the page has come to rest
            sent: list[object] = []
            (machine,) = viewer.render_statemachines.values()
            send = machine._send_output_to_viewer

            def counted(outputs: dict, static_render: bool = True) -> None:
                sent.append(tuple(outputs["rgb"].shape[:2]))
                send(outputs, static_render)

            machine._send_output_to_viewer = counted  # type: ignore[method-assign]
            end = time.monotonic() + self.page_seconds
            while time.monotonic() < end:
                controls._edit(lambda: turn_a_joint(controls))
                time.sleep(1 / 30)
            sizes = [f"{height}x{width}" for height, width in sent]  # type: ignore[misc]
            return {"page_fps": len(sent) / self.page_seconds, "page_size": statistics.mode(sizes)}
        finally:
            browser.close()


def turn_a_joint(controls: AnimalControls) -> None:
    """A bit further on, as a gizmo would."""
    editor = controls.editor
    present = editor.pose_at(editor.time).T_world_canonical[1, :3, :3].cpu()
    editor.turn(1, so3_exp(torch.tensor([0.02, 0.0, 0.0])) @ present)


def timed_on_a_page_thread(work: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Median seconds a call, of the clock and of the processor."""
    clock, processor = [], []

    def run() -> None:
        for _ in range(repeats + 5):
            started, worked = time.perf_counter(), time.process_time()
            work()
            clock.append(time.perf_counter() - started)
            processor.append(time.process_time() - worked)

    thread = PageThread(run)
    thread.start()
    thread.join()
    return statistics.median(clock[5:]), statistics.median(processor[5:])


if __name__ == "__main__":
    arguments = tyro.cli(ViewerRate)
    result = arguments.measure()
    if arguments.output is not None:
        write_json(arguments.output, result)  # type: ignore[arg-type]
    Console().print(result)
