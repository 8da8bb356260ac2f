"""A pose track as JSON values and back: which fields there are, and one-line errors for wrong types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bags_ns.animation.pose_track import Keyframe, PoseTrack

FORMAT = "bags pose track"
VERSION = 1
"""Of the JSON; a reader refuses newer ones."""


def track_json(track: PoseTrack) -> dict[str, Any]:
    """What is written of a track."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {"joints": list(track.joint_names), "parents": list(track.parents)},
        "fps": track.fps,
        "duration": track.duration,
        "interpolation": track.interpolation,
        "video_share": track.video_share,
        "keyframes": [_keyframe_json(keyframe) for keyframe in track.keyframes],
    }


def _keyframe_json(keyframe: Keyframe) -> dict[str, Any]:
    rotations = {name: [round(x, 8) for x in quat] for name, quat in keyframe.rotations.items()}
    result: dict[str, Any] = {"time": keyframe.time, "rotations": rotations}
    if keyframe.root is not None:
        result["root"] = {"translation": list(keyframe.root.translation), "rotation": list(keyframe.root.rotation)}
    return result


def track_fields(document: Any) -> dict[str, Any]:
    """Fields of a track from parsed JSON; keyframes as (time, rotations, (translation, rotation) or None).

    Raises:
        ValueError: a field is missing or of a wrong type.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f'not a pose track (no "format": "{FORMAT}")')
    version = document.get("version")
    if version != VERSION:
        raise ValueError(f"a pose track of version {version!r}, this program reads version {VERSION}")
    model = _mapping(document, "model")
    names = [_text(name, "model.joints") for name in _sequence(model, "joints")]
    parents = [_integer(parent, "model.parents") for parent in _sequence(model, "parents")]
    if len(names) != len(parents) or len(set(names)) != len(names):
        raise ValueError(f"model: {len(set(names))} different joints, but {len(parents)} parents")
    keyframes = [_keyframe(item, f"keyframes[{i}]") for i, item in enumerate(_sequence(document, "keyframes"))]
    last = keyframes[-1][0] if keyframes else 0.0
    return {
        "joint_names": tuple(names),
        "parents": tuple(parents),
        "keyframes": keyframes,
        "duration": _number(document.get("duration", last), "duration"),
        "fps": _number(document.get("fps", 24.0), "fps"),
        "interpolation": _choice(document.get("interpolation", "slerp"), ("slerp", "cubic"), "interpolation"),
        "video_share": _number(document.get("video_share", 0.0), "video_share"),
    }


def _keyframe(item: Any, where: str) -> tuple[float, dict[str, Any], tuple[Any, Any] | None]:
    if not isinstance(item, dict):
        raise ValueError(f"{where} must be an object, got {item!r:.60}")
    time = _number(item.get("time"), f"{where}.time")
    turns = {
        name: _numbers(q, 4, f"{where}.rotations.{name}") for name, q in _mapping(item, "rotations", where).items()
    }
    if item.get("root") is None:
        return time, turns, None
    root = _mapping(item, "root", where)
    translation = _numbers(root.get("translation", [0, 0, 0]), 3, f"{where}.root.translation")
    return time, turns, (translation, _numbers(root.get("rotation", [1, 0, 0, 0]), 4, f"{where}.root.rotation"))


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) == float("inf"):
        raise ValueError(f"{where} must be a number, got {value!r:.60}")
    return float(value)


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where} must hold whole numbers, got {value!r:.60}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} must be text, got {value!r:.60}")
    return value


def _choice(value: Any, choices: tuple[str, ...], where: str) -> str:
    if value not in choices:
        raise ValueError(f"{where} must be {' or '.join(map(repr, choices))}, got {value!r:.60}")
    return value


def _numbers(value: Any, count: int, where: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"{where} must be a list of {count} numbers, got {value!r:.60}")
    return tuple(_number(item, where) for item in value)


def _mapping(parent: dict[str, Any], name: str, where: str = "") -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{where + '.' if where else ''}{name} must be an object, got {value!r:.60}")
    return value


def _sequence(parent: dict[str, Any], name: str) -> list[Any]:
    value = parent.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {value!r:.60}")
    return value
