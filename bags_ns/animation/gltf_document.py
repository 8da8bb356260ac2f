"""A glTF 2.0 document that grows by arrays and objects, and its binary container (GLB)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bags_ns.files import whole_file

COMPONENT_TYPES = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
SHAPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
TARGETS = {"vertices": 34962, "indices": 34963}


@dataclass
class GltfDocument:
    """JSON objects by their glTF names, and the bytes of all arrays."""

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """nodes, meshes, skins, ..."""
    extensions: set[str] = field(default_factory=set)
    """Names of those in use."""
    binary: bytearray = field(default_factory=bytearray)
    """The one buffer."""

    def add(self, kind: str, **values: Any) -> int:
        """Appends an object of a kind such as "nodes", and returns its index."""
        items = self.objects.setdefault(kind, [])
        items.append(values)
        return len(items) - 1

    def array(
        self, values: np.ndarray, target: Literal["vertices", "indices"] | None = None, bounds: bool = False
    ) -> int:
        """Appends an array [count, *shape] as an accessor; a matrix is stored by columns.

        Args:
            target: what a GPU uses it for, if it does.
            bounds: whether to state its minimum and maximum, as positions and key times must.
        """
        stored = np.ascontiguousarray(values.swapaxes(-1, -2) if values.ndim == 3 else values)
        self.binary.extend(bytes(-len(self.binary) % 4))
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": stored.nbytes}
        if target is not None:
            view["target"] = TARGETS[target]
        self.binary.extend(stored.tobytes())
        accessor: dict[str, Any] = {
            "bufferView": self.add("bufferViews", **view),
            "componentType": COMPONENT_TYPES[stored.dtype.name],
            "count": len(stored),
            "type": SHAPES[stored.shape[1:]],
        }
        if bounds:
            accessor["min"] = np.atleast_1d(stored.min(axis=0)).tolist()
            accessor["max"] = np.atleast_1d(stored.max(axis=0)).tolist()
        return self.add("accessors", **accessor)

    def json(self) -> dict[str, Any]:
        """The document's JSON."""
        document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "bags_ns"}, "scene": 0, **self.objects}
        document["buffers"] = [{"byteLength": len(self.binary)}]
        if self.extensions:
            document["extensionsUsed"] = sorted(self.extensions)
        return document

    def write_glb(self, path: Path) -> None:
        """Writes JSON and buffer as one file, whole or not at all."""
        self.binary.extend(bytes(-len(self.binary) % 4))
        text = json.dumps(self.json(), separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + len(self.binary)
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, total))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary)
