"""The rig: what moves the Gaussians. Torch only; it knows neither nerfstudio nor gsplat.

Axes used in every signature: `N` Gaussians or points, `B` bones, `T` frames of the clip, `H` hidden units.

Frames:
    canonical   the animal as it is at the canonical time t0, z up, longest side about 1, at the origin.
    object      the animal with its bones moved, before the root: what the rig deforms canonical space into.
    world       the object frame moved by the root: what cameras look at.

Transforms are named `T_<to>_<from>` and read by composition: `T_world_object @ T_object_canonical`.
"""
