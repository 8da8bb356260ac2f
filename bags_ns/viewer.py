"""What the project adds to nerfstudio's viewer, in ns-train and ns-viewer alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl

FIRST_VIEW_DISTANCE = 2.2
"""Distance of a page's first camera to the animal's centre, in animal lengths."""


class FirstView(ViewerControl):
    """Puts the camera of every page that opens where the video's first camera looks from, back far enough for all of the animal.

    viser's own start lies inside the animal, where everything is fog.

    Args:
        camera_to_world: OpenGL pose of that camera.
    """

    def __init__(self, camera_to_world: Float[np.ndarray, "3 4"]) -> None:
        self._direction = camera_to_world[:, 2]

    def _setup(self, viewer: Viewer) -> None:
        """Called by nerfstudio when the viewer has been built."""
        super()._setup(viewer)

        @self.viser_server.on_client_connect
        def place(client: Any) -> None:
            distance = FIRST_VIEW_DISTANCE * VISER_NERFSTUDIO_SCALE_RATIO
            client.camera.position = tuple(self._direction * distance)
            client.camera.look_at = (0.0, 0.0, 0.0)
            client.camera.up_direction = (0.0, 0.0, 1.0)
