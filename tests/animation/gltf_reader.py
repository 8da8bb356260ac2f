"""Reads a GLB as a player would, with nothing of the exporter: nodes, animation, skinning."""

import json
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
SIZES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Glb:
    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, total = struct.unpack_from("<4sII", data)
        assert magic == b"glTF" and version == 2 and total == len(data)
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON"
        self.json = json.loads(data[20 : 20 + size])
        self.binary = data[28 + size :]

    def array(self, index: int) -> np.ndarray:
        accessor = self.json["accessors"][index]
        view = self.json["bufferViews"][accessor["bufferView"]]
        count, width = accessor["count"], SIZES[accessor["type"]]
        flat = np.frombuffer(self.binary, DTYPES[accessor["componentType"]], count * width, view["byteOffset"])
        return flat.reshape(count, width) if width > 1 else flat

    def node(self, name: str) -> dict:
        return next(node for node in self.json["nodes"] if node.get("name") == name)

    def attributes(self, name: str) -> dict[str, np.ndarray]:
        primitive = self.json["meshes"][self.node(name)["mesh"]]["primitives"][0]
        return {key: self.array(index) for key, index in primitive["attributes"].items()}

    def worlds(self, animation: int | None, time: float) -> np.ndarray:
        """World matrix [4 4] of every node at `time` seconds; the rest pose without an animation."""
        local = [
            (node.get("translation", [0, 0, 0]), node.get("rotation", [0, 0, 0, 1])) for node in self.json["nodes"]
        ]
        if animation is not None:
            self._animate(local, self.json["animations"][animation], time)
        result: dict[int, np.ndarray] = {}

        def visit(index: int, above: np.ndarray) -> None:
            matrix = np.eye(4)
            matrix[:3, 3], matrix[:3, :3] = local[index][0], Rotation.from_quat(local[index][1]).as_matrix()
            result[index] = above @ matrix
            for child in self.json["nodes"][index].get("children", []):
                visit(child, result[index])

        for top in self.json["scenes"][0]["nodes"]:
            visit(top, np.eye(4))
        return np.stack([result[index] for index in range(len(local))])

    def _animate(self, local: list, animation: dict, time: float) -> None:
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            times, values = self.array(sampler["input"]), self.array(sampler["output"]).astype(np.float64)
            right = int(np.clip(np.searchsorted(times, time), 1, len(times) - 1)) if len(times) > 1 else 0
            left = max(0, right - 1)
            share = np.clip((time - times[left]) / max(times[right] - times[left], 1e-12), 0, 1)
            value = (1 - share) * values[left] + share * values[right]  # nlerp is slerp at key times
            node = channel["target"]["node"]
            if channel["target"]["path"] == "translation":
                local[node] = (value, local[node][1])
            else:
                local[node] = (local[node][0], value / np.linalg.norm(value))

    def blended(self, name: str, animation: int | None, time: float) -> np.ndarray:
        """sum_b w_b world(joint_b) inverse_bind_b of every vertex of a skinned node: [P 4 4], y up."""
        node = self.node(name)
        skin = self.json["skins"][node["skin"]]
        inverse_binds = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2).astype(np.float64)
        matrices = self.worlds(animation, time)[skin["joints"]] @ inverse_binds
        attributes, total = self.attributes(name), 0.0
        for index in range(sum(key.startswith("JOINTS_") for key in attributes)):
            bones, weights = attributes[f"JOINTS_{index}"], attributes[f"WEIGHTS_{index}"].astype(np.float64)
            total = total + np.einsum("pk,pkij->pij", weights, matrices[bones])
        return np.asarray(total)

    def moved(self, name: str, animation: int | None, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions and blended linear parts, turned back to z up."""
        z_up = Rotation.from_quat([np.sqrt(0.5), 0, 0, np.sqrt(0.5)]).as_matrix()
        blended = self.blended(name, animation, time)[:, :3]
        positions = self.attributes(name)["POSITION"].astype(np.float64)
        moved = np.einsum("pij,pj->pi", blended[..., :3], positions) + blended[..., 3]
        return moved @ z_up.T, z_up @ blended[..., :3]
