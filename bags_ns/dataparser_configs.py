"""The data parser that nerfstudio's commands offer as `animal-video`.

In a module of its own: nerfstudio loads it while its own data parser module is still being imported.
"""

from __future__ import annotations

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from bags_ns.data.dataparser import AnimalVideoDataParserConfig

animal_video = DataParserSpecification(
    config=AnimalVideoDataParserConfig(),
    description="An animal's video with silhouettes, as a video file or frames, with or without known cameras.",
)
