"""Motion that did not come from training, and files that other programs open. It knows rigs and Gaussians, no model.

Frames are those of `bags_ns.rig`. A *local rotation* turns a bone about its joint in canonical axes, before its
ancestors' (`Skeleton.bones_to_canonical`): the identity everywhere is the canonical pose. K is a number of poses.
"""
