"""A body in motion as files for other programs: glTF (.glb: skeleton, skin, animation) and BVH (skeleton, animation).

Both have y up and z towards the viewer, metres, the camera at the origin: the camera's axes, x right, y down, z
forward, turned by 180 degrees about x. The skin has the clip's mean shape and no pose-dependent corrections.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from utils.errors import UserError
from utils.files import write_atomically
from utils.joints import SMPL24
from utils.kinematics import forward_kinematics

_FLOAT, _UNSIGNED_BYTE, _UNSIGNED_INT = 5126, 5121, 5125  # glTF's numbers for them
_TYPES = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (16,): "MAT4"}
_TURN = np.diag([1.0, -1.0, -1.0])  # from the camera's axes to those of the files
_Lists = dict[str, list[Any]]  # of a glTF file: what it consists of, by kind
_SHORT = 0.1  # quantile of the steps between frames, that counts as short
_ALIKE = 0.25  # by which steps may differ, of a step
_MOST_LINES, _LINES_AT_ONCE = 1_000_000, 4096


class Clip(NamedTuple):
    """A body of one shape, moving.

    Attributes:
        vertices: (V,3) m, the body in the zero pose; faces: (F,3); weights: (V,24) of the skin
        joints: (24,3) m, in the zero pose; parents: (24,), of the first one -1
        rotmat: (N,24,3,3); translation: (N,3) m, added to the posed body
        times: (N,) s
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    parents: np.ndarray
    rotmat: np.ndarray
    translation: np.ndarray
    times: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        """(24,3) m, of each joint from its parent; of the first one from the origin."""
        return np.concatenate([self.joints[:1], self.joints[1:] - self.joints[self.parents[1:]]])

    def skeleton(self) -> np.ndarray:
        """Joints (N,24,3) m of every frame, in the camera's axes."""
        places = forward_kinematics(self.rotmat, self.joints, self.parents)[1]
        return places + self.translation[:, None]


def save_glb(path: Path, clip: Clip) -> None:
    """Write skeleton, skin and animation, one key for each frame; UserError when the file cannot be written."""
    save_scene(path, {"": clip})


def save_scene(path: Path, clips: Mapping[str, Clip]) -> None:
    """The same of several bodies, which move in one time.

    Args:
        path: the file
        clips: of each body, by what the names of its nodes begin with; before its first frame and after its last, if
            others are there then, it is shrunk to nothing
    """
    parts, ends = _Parts(), [time for clip in clips.values() for time in (clip.times[0], clip.times[-1])]
    lists: _Lists = {"nodes": [], "meshes": [], "skins": [], "samplers": [], "channels": []}
    span = (min(ends), max(ends))
    bodies = [node for name, clip in clips.items() for node in _add_body(lists, parts, name, clip, span)]
    nodes = lists["nodes"]
    nodes.append({"name": "camera axes", "rotation": [1.0, 0.0, 0.0, 0.0], "children": bodies})
    document = {
        "asset": {"version": "2.0", "generator": "BOA"},
        "scene": 0,
        "scenes": [{"nodes": [len(nodes) - 1]}],
        "nodes": nodes,
        "meshes": lists["meshes"],
        "skins": lists["skins"],
        "animations": [{name: lists[name] for name in ("samplers", "channels")}],
        "accessors": parts.accessors,
        "bufferViews": parts.views,
        "buffers": [{"byteLength": len(parts.data)}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(parts.data))
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(parts.data), b"BIN\0")
    write_atomically(path, lambda temporary: temporary.write_bytes(head + chunks + bytes(parts.data)))


def _add_body(lists: _Lists, parts: "_Parts", name: str, clip: Clip, span: tuple[float, float]) -> tuple[int, int]:
    """Add a body to a file whose animation has this span, s -> its nodes: the root of the skeleton, and the mesh."""
    root = len(lists["nodes"])
    body = root + len(clip.joints)
    strongest = np.argsort(-clip.weights, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(clip.weights, strongest, axis=1)
    bind = np.tile(np.eye(4), (len(clip.joints), 1, 1))
    bind[:, :3, 3] = -clip.joints
    attributes = {
        "POSITION": parts.add(clip.vertices, _FLOAT, bounds=True),
        "JOINTS_0": parts.add(strongest, _UNSIGNED_BYTE),
        "WEIGHTS_0": parts.add(weights / weights.sum(axis=1, keepdims=True), _FLOAT),
    }
    indices = parts.add(clip.faces.reshape(-1), _UNSIGNED_INT)
    # glTF has the columns of a matrix one after the other
    binds = parts.add(bind.swapaxes(1, 2).reshape(-1, 16), _FLOAT)
    times = parts.add(clip.times - span[0], _FLOAT, bounds=True)
    for joint, (joint_name, offset) in enumerate(zip(SMPL24, clip.offsets, strict=True)):
        children = (root + np.flatnonzero(clip.parents == joint)).tolist()
        node = {"name": name + joint_name, "translation": offset.tolist()}
        lists["nodes"].append(node | ({"children": children} if children else {}))
        _animate(lists, root + joint, "rotation", times, parts.add(_quaternions(clip.rotmat[:, joint]), _FLOAT))
    _animate(lists, root, "translation", times, parts.add(clip.joints[0] + clip.translation, _FLOAT))
    keys, sizes = _presence(clip.times, span)
    if len(keys) > 1:
        there = parts.add(keys - span[0], _FLOAT, bounds=True)
        _animate(lists, root, "scale", there, parts.add(np.repeat(sizes[:, None], 3, axis=1), _FLOAT), "STEP")
    lists["nodes"].append({"name": f"{name}body", "mesh": len(lists["meshes"]), "skin": len(lists["skins"])})
    lists["meshes"].append({"primitives": [{"attributes": attributes, "indices": indices}]})
    joints = list(range(root, body))
    lists["skins"].append({"joints": joints, "inverseBindMatrices": binds, "skeleton": root})
    return root, body


def _animate(lists: _Lists, node: int, path: str, times: int, values: int, interpolation: str = "LINEAR") -> None:
    """Add a channel that moves a node by accessors of times and values."""
    lists["channels"].append({"sampler": len(lists["samplers"]), "target": {"node": node, "path": path}})
    lists["samplers"].append({"input": times, "output": values, "interpolation": interpolation})


def _presence(times: np.ndarray, span: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Keys (K,) s and sizes (K,) of a body at times (N,) in a span of time: 0 where it is not there yet, or no more."""
    keys, sizes = [times[0]], [1.0]
    if span[0] < times[0]:
        keys, sizes = [span[0], *keys], [0.0, *sizes]
    if times[-1] < span[1]:
        keys, sizes = [*keys, min(times[-1] + _frame_time(times), span[1])], [*sizes, 0.0]
    return np.array(keys), np.array(sizes)


class _Parts:
    """The binary part of a glTF file, and what its JSON part says about it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, component: int, bounds: bool = False) -> int:
        """Append an array (N,...) -> the number of its accessor."""
        dtype = {_FLOAT: "<f4", _UNSIGNED_BYTE: "u1", _UNSIGNED_INT: "<u4"}[component]
        array = np.ascontiguousarray(array, dtype)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes})
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": component,
            "count": len(array),
            "type": _TYPES[array.shape[1:]],
        }
        if bounds:
            low, high = (np.atleast_1d(end).tolist() for end in (array.min(axis=0), array.max(axis=0)))
            accessor |= {"min": low, "max": high}
        self.accessors.append(accessor)
        self.data += array.tobytes() + bytes(-array.nbytes % 4)
        return len(self.accessors) - 1


def _quaternions(rotmat: np.ndarray) -> np.ndarray:
    """Rotations (N,3,3) -> unit quaternions (N,4), real part last, without jumps from q to -q."""
    quaternions = Rotation.from_matrix(rotmat).as_quat()
    jumps = (quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0
    quaternions[1:][np.cumsum(jumps) % 2 == 1] *= -1
    return quaternions


def save_bvh(path: Path, clip: Clip) -> None:
    """Write skeleton and animation, metres; UserError when it cannot be written.

    BVH has one frame time for all: that of the clip's shorter steps. Each frame comes at the line nearest to its time,
    what lies between two, as in a gap, is interpolated, as programs do with a glTF file.
    """
    step = _frame_time(clip.times)
    lines, last = np.unique(np.round((clip.times - clip.times[0]) / step)[::-1], return_index=True)
    keys = len(clip.times) - 1 - last  # of two at one line, the later
    count = int(lines[-1]) + 1
    if count > _MOST_LINES:
        raise UserError(f"{path} would have {count} frames of {step:.3f} s each, mostly gap; take --export glb")
    head = ["HIERARCHY", *_hierarchy(clip, 0, ""), "MOTION", f"Frames: {count}", f"Frame Time: {step:.8f}"]

    def write(temporary: Path) -> None:
        with temporary.open("w") as file:
            file.write("\n".join(head) + "\n")
            for start in range(0, count, _LINES_AT_ONCE):
                wanted = np.arange(start, min(start + _LINES_AT_ONCE, count))
                file.writelines(_motion(clip, np.interp(wanted, lines, np.arange(len(keys))), keys))

    write_atomically(path, write)


def _frame_time(times: np.ndarray) -> float:
    """The constant step, s, that comes nearest to times (N,): the mean of those that are about as long as the short."""
    steps = np.diff(times)
    if not len(steps):
        return 1.0
    short = np.quantile(steps, _SHORT)
    return float(steps[np.abs(steps - short) <= _ALIKE * short].mean())


def _motion(clip: Clip, places: np.ndarray, keys: np.ndarray) -> Iterator[str]:
    """BVH's lines for places (N,) among the frames of the clip that are `keys`, and between two of these."""
    before = np.floor(places).astype(int)
    low, high = keys[before], keys[np.minimum(before + 1, len(keys) - 1)]
    fraction = (places - before)[:, None]
    start, end = (Rotation.from_matrix(clip.rotmat[frames].reshape(-1, 3, 3)) for frames in (low, high))
    turns = (start.inv() * end).as_rotvec() * np.repeat(fraction, len(clip.joints), axis=0)
    rotmat = (start * Rotation.from_rotvec(turns)).as_matrix().reshape(len(places), -1, 3, 3)
    rotmat[:, 0] = _TURN @ rotmat[:, 0]
    angles = Rotation.from_matrix(rotmat.reshape(-1, 3, 3)).as_euler("ZYX", degrees=True).reshape(len(places), -1)
    translation = (1 - fraction) * clip.translation[low] + fraction * clip.translation[high]
    columns = np.concatenate([np.arange(3) + 3 * joint for joint in _depth_first(clip.parents)])
    for place, numbers in zip((clip.joints[0] + translation) @ _TURN.T, angles[:, columns], strict=True):
        yield " ".join(f"{number:.6f}" for number in (*place, *numbers)) + "\n"


def _depth_first(parents: np.ndarray, joint: int = 0) -> list[int]:
    children = np.flatnonzero(parents == joint)
    return [joint, *(number for child in children for number in _depth_first(parents, child))]


def _hierarchy(clip: Clip, joint: int, indent: str) -> list[str]:
    # the root's place is in its channels
    offset = clip.offsets[joint] if joint else np.zeros(3)
    channels = "6 Xposition Yposition Zposition" if joint == 0 else "3"
    inner = indent + "  "
    lines = [
        f"{indent}{'JOINT' if joint else 'ROOT'} {SMPL24[joint]}",
        f"{indent}{{",
        f"{inner}OFFSET {' '.join(f'{number:.6f}' for number in offset)}",
        f"{inner}CHANNELS {channels} Zrotation Yrotation Xrotation",
    ]
    children = np.flatnonzero(clip.parents == joint)
    for child in children:
        lines += _hierarchy(clip, child, inner)
    if not len(children):
        lines += [f"{inner}End Site", f"{inner}{{", f"{inner}  OFFSET 0 0 0", f"{inner}}}"]
    return [*lines, f"{indent}}}"]
