"""What the project adds to nerfstudio's viewer, in ns-train and ns-viewer alike: handles, time, keyframes, exports.

`editor` and `playback` know no window; the others are a thin layer of viser over them. `time` is the viewer's, from 0 at
the start to 1 at the end: of the video, and of the track that a person makes, which may last longer.
"""
