"""Body plans: the proportions of kinds of animals that random creatures are drawn around.

Lengths are in the unit in which `HALF_TORSO` is given; `random_creatures` scales every creature to longest side 1.
"""

from __future__ import annotations

from dataclasses import dataclass

Numbers = tuple[float | int, ...]

HALF_TORSO = 0.41
"""Distance from the middle of the torso to shoulder and hip: the unit of the table of body plans."""


@dataclass(frozen=True)
class BodyPlan:
    """Proportions of one kind of animal, grouped by region. The torso is 2 `HALF_TORSO` long, angles in degrees."""

    trunk: Numbers
    """Radii of chest, waist and rump."""
    legs: Numbers
    """Height of the torso's axis above the ground; radii of thigh, knee and foot."""
    neck: Numbers
    """Length, angle above the horizon, radius at its base and below the head."""
    head: Numbers
    """Radius, angle of the snout below the horizon, length and end radius of the snout."""
    ears: Numbers
    """Length, radius, angle from upright to sideways (more than 90 hangs)."""
    tail: Numbers
    """Length, angle above the horizon, upward curl a joint, radii at base, middle and tip."""
    extras: Numbers = (0.0, 0.0, 0.0, 0.0)
    """Length of horns, thickness of the mane, height of a front and of a rear hump (0: none)."""


BODY_PLANS = {
    "fox": BodyPlan(
        (0.16, 0.125, 0.14), (0.68, 0.10, 0.038, 0.034), (0.26, 45, 0.13, 0.10), (0.12, 12, 0.20, 0.03), (0.20, 0.07, 18), (0.85, -18, 8, 0.05, 0.11, 0.03)
    ),
    "dog": BodyPlan(
        (0.20, 0.155, 0.165), (0.77, 0.13, 0.05, 0.052), (0.32, 52, 0.16, 0.12), (0.14, 12, 0.20, 0.055), (0.15, 0.055, 15), (0.65, 40, 35, 0.045, 0.05, 0.03)
    ),
    "hound": BodyPlan(
        (0.17, 0.115, 0.13), (0.82, 0.11, 0.038, 0.04), (0.32, 50, 0.11, 0.085), (0.10, 15, 0.22, 0.04), (0.15, 0.04, 140), (0.60, 0, 15, 0.025, 0.02, 0.012)
    ),
    "dachshund": BodyPlan(
        (0.15, 0.13, 0.13), (0.34, 0.08, 0.042, 0.042), (0.24, 48, 0.11, 0.085), (0.10, 15, 0.19, 0.04), (0.16, 0.045, 150), (0.42, 10, 12, 0.03, 0.024, 0.014)
    ),
    "cat": BodyPlan(
        (0.14, 0.135, 0.14), (0.58, 0.09, 0.038, 0.038), (0.18, 42, 0.11, 0.10), (0.125, 8, 0.05, 0.05), (0.11, 0.055, 25), (0.80, 25, 25, 0.032, 0.03, 0.026)
    ),
    "lion": BodyPlan(
        (0.20, 0.17, 0.17), (0.73, 0.13, 0.06, 0.065), (0.27, 30, 0.17, 0.14), (0.14, 14, 0.13, 0.075), (0.07, 0.045, 45), (0.85, -25, 22, 0.03, 0.022, 0.04), (0, 0.13, 0, 0)
    ),
    "tiger": BodyPlan(
        (0.19, 0.175, 0.175), (0.70, 0.125, 0.06, 0.062), (0.26, 28, 0.16, 0.13), (0.14, 12, 0.11, 0.075), (0.07, 0.045, 45), (0.85, -25, 25, 0.03, 0.03, 0.026)
    ),
    "bear": BodyPlan(
        (0.29, 0.29, 0.30), (0.75, 0.17, 0.09, 0.09), (0.27, 18, 0.22, 0.17), (0.165, 15, 0.18, 0.07), (0.07, 0.055, 35), (0.10, -30, 0, 0.05, 0.04, 0.03)
    ),
    "cow": BodyPlan(
        (0.26, 0.27, 0.25), (0.78, 0.13, 0.055, 0.058), (0.36, 22, 0.19, 0.13), (0.13, 38, 0.25, 0.085), (0.14, 0.04, 85), (0.70, -80, 0, 0.024, 0.018, 0.04), (0.16, 0, 0, 0)
    ),
    "pig": BodyPlan(
        (0.25, 0.26, 0.25), (0.55, 0.12, 0.05, 0.05), (0.13, 8, 0.21, 0.17), (0.155, 22, 0.18, 0.075), (0.13, 0.055, 50), (0.20, 30, 60, 0.02, 0.015, 0.01)
    ),
    "sheep": BodyPlan(
        (0.26, 0.28, 0.27), (0.70, 0.13, 0.04, 0.042), (0.24, 38, 0.17, 0.12), (0.11, 32, 0.16, 0.06), (0.12, 0.036, 105), (0.15, -60, 0, 0.06, 0.05, 0.04)
    ),
    "horse": BodyPlan(
        (0.225, 0.22, 0.225), (0.95, 0.13, 0.048, 0.052), (0.58, 48, 0.18, 0.10), (0.11, 45, 0.32, 0.065), (0.10, 0.03, 12), (0.75, -55, -10, 0.04, 0.07, 0.03), (0, 0.05, 0, 0)
    ),
    "deer": BodyPlan(
        (0.18, 0.16, 0.165), (0.88, 0.11, 0.035, 0.035), (0.48, 55, 0.12, 0.075), (0.095, 22, 0.21, 0.045), (0.16, 0.045, 60), (0.15, 20, 0, 0.05, 0.04, 0.02), (0.34, 0, 0, 0)
    ),
    "camel": BodyPlan(
        (0.25, 0.22, 0.20), (1.05, 0.12, 0.055, 0.075), (0.78, 38, 0.14, 0.085), (0.105, 12, 0.24, 0.06), (0.07, 0.03, 25), (0.40, -72, 0, 0.025, 0.02, 0.03), (0, 0, 0.26, 0.24)
    ),
    "giraffe": BodyPlan(
        (0.25, 0.22, 0.20), (1.30, 0.13, 0.05, 0.055), (1.45, 64, 0.16, 0.08), (0.10, 25, 0.27, 0.055), (0.12, 0.035, 70), (0.50, -80, 0, 0.022, 0.014, 0.035), (0.09, 0, 0, 0)
    ),
}  # fmt: skip

ANGLE_COLUMNS = {"neck": (1,), "head": (1,), "ears": (2,), "tail": (1, 2)}
"""Which numbers of a body plan's groups are angles."""
