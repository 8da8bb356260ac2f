"""Procedural quadrupeds with a gait: demo clips with ground truth, training data of the small prior, test material.

Frame of a creature: z up, it faces -y and its left side is +x, the box of its rest pose is centred at the origin and its
longest side is 1. Axes in signatures: `batch` creatures, `parts` rigid parts (`PART_NAMES`), `cones` rounded cones
(`CONES`). Nothing here reads a file: every number comes from the tables in `plans.py`, `coat.py` and a `torch.Generator`.
"""

from bags_ns.data.creatures.anatomy import CONES as CONES
from bags_ns.data.creatures.anatomy import FOOT_NAMES as FOOT_NAMES
from bags_ns.data.creatures.anatomy import PART_NAMES as PART_NAMES
from bags_ns.data.creatures.clip import ClipSettings as ClipSettings
from bags_ns.data.creatures.clip import random_animated_creature as random_animated_creature
from bags_ns.data.creatures.clip import write_creature_clip as write_creature_clip
from bags_ns.data.creatures.plans import BODY_PLANS as BODY_PLANS
from bags_ns.data.creatures.pose import AnimatedCreature as AnimatedCreature
from bags_ns.data.creatures.pose import Gaits as Gaits
from bags_ns.data.creatures.pose import Poses as Poses
from bags_ns.data.creatures.pose import part_transforms as part_transforms
from bags_ns.data.creatures.pose import poses_at as poses_at
from bags_ns.data.creatures.pose import random_gaits as random_gaits
from bags_ns.data.creatures.pose import random_poses as random_poses
from bags_ns.data.creatures.pose import rest_poses as rest_poses
from bags_ns.data.creatures.render import posed_boxes as posed_boxes
from bags_ns.data.creatures.render import render_creatures as render_creatures
from bags_ns.data.creatures.shading import Lights as Lights
from bags_ns.data.creatures.shading import default_lights as default_lights
from bags_ns.data.creatures.shading import random_lights as random_lights
from bags_ns.data.creatures.shape import Creatures as Creatures
from bags_ns.data.creatures.shape import random_creatures as random_creatures
