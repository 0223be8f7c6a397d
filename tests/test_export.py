"""Animated files, read back by readers of their own and compared with the body model."""

import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from footage.export import Clip, save_bvh, save_glb
from utils.errors import UserError
from utils.joints import BODY25, SMPL24

FRAMES = 7
TURN = np.array([1.0, -1.0, -1.0])  # from the camera's axes, y down, to the files', y up


@pytest.fixture(scope="module")
def body(free_body):
    return free_body


@pytest.fixture(scope="module")
def clip(body) -> Clip:
    rng = np.random.default_rng(0)
    betas = torch.tensor(rng.normal(0, 1, (1, 10)), dtype=torch.float32)
    vertices = body.unposed(betas)[0]
    steps = rng.normal(0, 0.2, (FRAMES, 24, 3))
    return Clip(
        vertices.numpy(),
        np.asarray(body.faces),
        body.lbs_weights.numpy(),
        (body.J_regressor @ vertices).numpy().astype(float),
        np.array(body.parents),
        Rotation.from_rotvec(np.cumsum(steps, axis=0).reshape(-1, 3)).as_matrix().reshape(FRAMES, 24, 3, 3),
        rng.normal(0, 1, (FRAMES, 3)) + [0, 0, 4],
        np.arange(FRAMES) / 25 + 1.5,
    )


def test_the_skeleton_is_where_the_body_model_has_its_joints(body, clip):
    rotmat = torch.tensor(clip.rotmat, dtype=torch.float32)
    zero = torch.zeros(FRAMES, 10)
    rest = (body.J_regressor @ body.v_template).numpy().astype(float)
    joints = body.from_rotmat(rotmat, zero).joints.numpy()
    skeleton = clip._replace(joints=rest, translation=np.zeros((FRAMES, 3))).skeleton()
    for row, name in enumerate(BODY25.values()):
        if name in SMPL24:
            np.testing.assert_allclose(skeleton[:, SMPL24.index(name)], joints[:, row], atol=1e-5)


def read_glb(path) -> tuple[dict, list[np.ndarray]]:
    """The JSON part of a glTF file, and its accessors."""
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON"
    document = json.loads(data[20 : 20 + size])
    binary = data[20 + size + 8 :]
    arrays = []
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5121: "u1", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor["type"]]
        array = np.frombuffer(binary, dtype, accessor["count"] * width, view["byteOffset"])
        arrays.append(array.reshape(accessor["count"], width))
    return document, arrays


def glb_globals(document: dict, arrays: list[np.ndarray], frame: int) -> dict[str, np.ndarray]:
    """Global transforms (4,4) of all nodes at a key of the animation, by glTF's rules."""
    nodes = [dict(node) for node in document["nodes"]]
    animation = document["animations"][0]
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        nodes[channel["target"]["node"]][channel["target"]["path"]] = arrays[sampler["output"]][frame]
    found: dict[str, np.ndarray] = {}

    def visit(number: int, parent: np.ndarray) -> None:
        node, local = nodes[number], np.eye(4)
        local[:3, :3] = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
        local[:3, 3] = node.get("translation", [0, 0, 0])
        found[node["name"]] = parent @ local
        for child in node.get("children", []):
            visit(child, found[node["name"]])

    for root in document["scenes"][0]["nodes"]:
        visit(root, np.eye(4))
    return found


def test_a_glb_has_the_joints_and_the_times_of_the_clip(clip, tmp_path):
    save_glb(tmp_path / "a.glb", clip)
    document, arrays = read_glb(tmp_path / "a.glb")
    times = arrays[document["animations"][0]["samplers"][0]["input"]][:, 0]
    np.testing.assert_allclose(times, clip.times - clip.times[0], atol=1e-6)
    skeleton = clip.skeleton()
    for frame in range(FRAMES):
        transforms = glb_globals(document, arrays, frame)
        joints = np.array([transforms[name][:3, 3] for name in SMPL24])
        np.testing.assert_allclose(joints, skeleton[frame] * TURN, atol=1e-5)


def test_the_skin_of_a_glb_follows_the_body_model(body, clip, tmp_path):
    """Up to the corrections of the surface that the pose makes, which a glTF skin does not have."""
    clip = clip._replace(vertices=body.v_template.numpy(), joints=(body.J_regressor @ body.v_template).numpy())
    save_glb(tmp_path / "a.glb", clip)
    document, arrays = read_glb(tmp_path / "a.glb")
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    points, joints, weights = (arrays[attributes[name]] for name in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    skin = document["skins"][0]
    binds = arrays[skin["inverseBindMatrices"]].reshape(-1, 4, 4).swapaxes(1, 2)
    transforms = glb_globals(document, arrays, 3)
    names = [document["nodes"][joint]["name"] for joint in skin["joints"]]
    matrices = np.array([transforms[name] @ bind for name, bind in zip(names, binds, strict=True)])
    homogeneous = np.pad(points, ((0, 0), (0, 1)), constant_values=1)
    skinned = np.einsum("vk,vkij,vj->vi", weights, matrices[joints], homogeneous)[:, :3]
    rotmat = torch.tensor(clip.rotmat[3:4], dtype=torch.float32)
    posed = body.from_rotmat(rotmat, torch.zeros(1, 10)).vertices[0].numpy() + clip.translation[3]
    distance = np.linalg.norm(skinned - posed * TURN, axis=1)
    assert np.median(distance) < 0.01 and np.quantile(distance, 0.95) < 0.06


def test_trimesh_opens_a_glb(clip, tmp_path):
    save_glb(tmp_path / "a.glb", clip)
    scene = trimesh.load(tmp_path / "a.glb")
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == len(clip.faces)
    assert set(SMPL24) <= set(scene.graph.nodes)


def read_bvh(path) -> tuple[list[str], np.ndarray, float]:
    """Names and global positions (N,J,3) of the joints of a BVH file, and its frame time."""
    lines = iter(path.read_text().split("\n"))
    names, offsets, parents, open_joints, orders = [], [], [], [], []
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] in ("ROOT", "JOINT"):
            names.append(words[1])
            parents.append(open_joints[-1] if open_joints else -1)
            open_joints.append(len(names) - 1)
        elif words[0] == "End":
            open_joints.append(None)
        elif words[0] == "OFFSET" and open_joints[-1] is not None:
            offsets.append([float(word) for word in words[1:]])
        elif words[0] == "CHANNELS":
            orders.append("".join(word[0] for word in words[2:] if word.endswith("rotation")))
        elif words[0] == "}":
            open_joints.pop()
        elif words[0] == "MOTION":
            break
    count = int(next(lines).split(":")[1])
    step = float(next(lines).split(":")[1])
    rows = np.array([[float(word) for word in next(lines).split()] for _ in range(count)])
    positions = np.zeros((count, len(names), 3))
    turned = np.zeros((count, len(names), 3, 3))
    for joint, (offset, parent, order) in enumerate(zip(offsets, parents, orders, strict=True)):
        local = Rotation.from_euler(order, rows[:, 3 + 3 * joint : 6 + 3 * joint], degrees=True).as_matrix()
        if parent < 0:
            positions[:, joint], turned[:, joint] = rows[:, :3] + offset, local
        else:
            positions[:, joint] = positions[:, parent] + turned[:, parent] @ offset
            turned[:, joint] = turned[:, parent] @ local
    return names, positions, step


def test_a_bvh_has_the_joints_and_the_rate_of_the_clip(clip, tmp_path):
    save_bvh(tmp_path / "a.bvh", clip)
    names, positions, step = read_bvh(tmp_path / "a.bvh")
    assert sorted(names) == sorted(SMPL24) and step == pytest.approx(1 / 25)
    expected = clip.skeleton()[:, [SMPL24.index(name) for name in names]] * TURN
    np.testing.assert_allclose(positions, expected, atol=1e-4)


def at(clip: Clip, times: list[float]) -> Clip:
    """The first frames of the clip at other times."""
    return clip._replace(
        rotmat=clip.rotmat[: len(times)], translation=clip.translation[: len(times)], times=np.array(times)
    )


def saved_bvh(clip: Clip, path) -> tuple[np.ndarray, float]:
    save_bvh(path / "a.bvh", clip)
    names, positions, step = read_bvh(path / "a.bvh")
    return positions[:, [names.index(name) for name in SMPL24]] * TURN, step


def test_a_bvh_plays_at_the_speed_of_a_clip_with_a_gap(clip, tmp_path):
    """Six frames at 25 frames/s, of which the third to fifth come after 0.8 s without the person."""
    times = [0.0, 0.04, 0.84, 0.88, 0.92, 0.96]
    positions, step = saved_bvh(at(clip, times), tmp_path)
    assert step == pytest.approx(0.04) and len(positions) == 25
    lines = np.round(np.array(times) / 0.04).astype(int)
    np.testing.assert_allclose(positions[lines], at(clip, times).skeleton(), atol=1e-4)
    # from one side of the gap to the other in a straight line, as a glTF file is played
    root = positions[1:22, 0]
    np.testing.assert_allclose(root, np.linspace(root[0], root[-1], 21), atol=1e-4)


def test_a_bvh_plays_at_the_speed_of_a_clip_of_variable_rate(clip, tmp_path):
    times = [0.0, 0.04, 0.08, 0.12, 0.22, 0.32, 0.42]
    positions, step = saved_bvh(at(clip, times), tmp_path)
    assert step * (len(positions) - 1) == pytest.approx(0.42, abs=step / 2)
    expected = at(clip, times).skeleton()
    for time, joints in zip(times, expected, strict=True):
        away = np.abs(positions - joints).max(axis=(1, 2))
        assert abs(away.argmin() * step - time) <= step / 2 + 1e-9 and away.min() < 1e-4


def test_times_that_a_container_rounds_are_no_other_rate(clip, tmp_path):
    """29.97 frames/s in whole milliseconds, as Matroska has them."""
    times = np.round(np.arange(FRAMES) * 1001 / 30, 0) / 1000
    positions, step = saved_bvh(at(clip, list(times)), tmp_path)
    assert len(positions) == FRAMES and step == pytest.approx(1.001 / 30, abs=2e-4)


def test_a_bvh_of_one_frame_and_one_of_a_day_without_anybody(clip, tmp_path):
    assert len(saved_bvh(at(clip, [3.0]), tmp_path)[0]) == 1
    with pytest.raises(UserError, match="mostly gap; take --export glb"):
        save_bvh(tmp_path / "day.bvh", at(clip, [0.0, 0.04, 0.08, 86400.0]))
    assert not (tmp_path / "day.bvh").exists()
