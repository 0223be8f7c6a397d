"""Motion capture in BVH files -> poses of the free body, from the positions of the joints.

Skeletons differ in what their rotations are relative to, and in their proportions; where the joints are is the same in
all of them. Pelvis and chest turn as hips, shoulders and spine do, limbs point to where theirs point, elbows and knees
bend in the plane of the limb, and the head turns as the file says. Wrists are at rest.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from utils.errors import UserError
from utils.files import existing, load_npz, save_npz
from utils.joints import SIDES, SMPL24

log = logging.getLogger("boa")

RATE = 30.0  # poses/s that are kept
_REMEDY = "name a folder of BVH files by MOCAP_ROOT in config.py"
_UPRIGHT = 0.85  # cosine between the resting skeleton and an axis, from which it stands along it
_STRAIGHT, _BENT = 0.1, 0.4  # sine of a bend, below which its plane is unknown, and above which it is trusted
_MOST_AT_ANKLE = 0.9  # rad

# what a joint is called: in conversions of the CMU data base, in those for iClone, in our own files
_NAMES = {
    "spine": ("LowerBack", "Spine", "CC_Base_Spine01", "spine1"),
    "chest": ("Spine1", "CC_Base_Waist", "spine3"),
    "head": ("Head", "CC_Base_Head", "head"),
}
_SIDED = {
    "collar": ("{Side}Shoulder", "CC_Base_{S}_Clavicle", "{side}_collar"),
    "shoulder": ("{Side}Arm", "CC_Base_{S}_Upperarm", "{side}_shoulder"),
    "elbow": ("{Side}ForeArm", "CC_Base_{S}_Forearm", "{side}_elbow"),
    "wrist": ("{Side}Hand", "CC_Base_{S}_Hand", "{side}_wrist"),
    "hip": ("{Side}UpLeg", "CC_Base_{S}_Thigh", "{side}_hip"),
    "knee": ("{Side}Leg", "CC_Base_{S}_Calf", "{side}_knee"),
    "ankle": ("{Side}Foot", "CC_Base_{S}_Foot", "{side}_ankle"),
    "foot": ("{Side}ToeBase", "CC_Base_{S}_ToeBase", "{side}_foot"),
}
_WANTED = {
    **_NAMES,
    **{
        f"{side}_{part}": tuple(name.format(side=side, Side=side.title(), S=side[0].upper()) for name in names)
        for side in SIDES
        for part, names in _SIDED.items()
    },
}


class Skeleton(NamedTuple):
    """A moving skeleton with its J joints by name.

    places (T,J,3), turns (T,J) from rest, both in the axes of the file; rest (J,3), the places when nothing is turned;
    step, seconds between two frames
    """

    names: list[str]
    places: np.ndarray
    turns: list[Rotation]
    rest: np.ndarray
    step: float


def convert(folder: Path, output: Path, body_file: Path) -> list[str]:
    """Write `poses` (N,24,3) float16, axis-angle, y up, and `clip` (N,), the name of its file, of all BVH files.

    Args:
        folder: with the files, at any depth
        output: the npz
        body_file: SMPL_NEUTRAL.npz of the body that is to move

    Returns:
        the files that could not be converted; a log line of each says why

    Raises:
        UserError: there is no file, or none could be converted
    """
    existing(folder, _REMEDY)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() == ".bvh")
    if not files:
        raise UserError(f"{folder} holds no .bvh file; {_REMEDY}")
    rest = _rest(body_file)
    poses, clips, failed = [], [], []
    for file in tqdm(files, desc="motion capture", unit=" files"):
        name = str(file.relative_to(folder).with_suffix(""))
        try:
            poses.append(retarget(file, rest))
            clips += [name] * len(poses[-1])
        except UserError as error:
            log.error("%s", error)
            failed.append(name)
    if not poses:
        raise UserError(f"none of the {len(files)} files of {folder} could be converted (see above); {_REMEDY}")
    save_npz(output, poses=np.concatenate(poses).astype(np.float16), clip=np.array(clips))
    log.info("%d poses of %d files are in %s", len(clips), len(poses), output)
    if failed:
        log.warning("%d of %d files are left out: %s", len(failed), len(files), ", ".join(failed))
    return failed


def _rest(body_file: Path) -> dict[str, np.ndarray]:
    """Places of the joints (3,) m of a body in the zero pose."""
    model = load_npz(body_file, ("J_regressor", "v_template"), "restore data/demo from the repository")
    return dict(zip(SMPL24, model["J_regressor"] @ model["v_template"], strict=True))


def retarget(file: Path, rest: dict[str, np.ndarray]) -> np.ndarray:
    """Poses (T,24,3) of a file at about RATE poses a second; `rest` are the joints of the body in the zero pose.

    Raises UserError when it is no BVH file, lacks a joint or does not stand upright at rest.
    """
    skeleton = read_bvh(file)
    rows = _rows(file, skeleton.names)
    stride = max(1, round(1 / (RATE * skeleton.step)))
    places = {name: skeleton.places[::stride, row] for name, row in rows.items()}
    standing = {name: skeleton.rest[row] for name, row in rows.items()}
    axes = _axes(file, standing)
    places = {name: place @ axes for name, place in places.items()}
    standing = {name: place @ axes for name, place in standing.items()}
    upright = Rotation.from_matrix(axes.T)
    head = upright * skeleton.turns[rows["head"]][::stride] * upright.inv()
    return _poses(places, standing, head, rest)


def _rows(file: Path, names: list[str]) -> dict[str, int]:
    """Where the wanted joints are among the file's."""
    rows = {}
    for wanted, candidates in _WANTED.items():
        known = [name for name in candidates if name in names]
        if not known:
            raise UserError(f"{file} has no joint {' or '.join(dict.fromkeys(candidates))}; it is of another skeleton")
        rows[wanted] = names.index(known[0])
    return rows


def _axes(file: Path, standing: dict[str, np.ndarray]) -> np.ndarray:
    """Left, up and forward, as columns (3,3) in the file's axes, of a skeleton at rest."""
    hips = standing["left_hip"] - standing["right_hip"]
    tall = _unit(sum(standing[f"{side}_shoulder"] - standing[f"{side}_hip"] for side in SIDES))
    up = np.zeros(3)
    axis = np.abs(tall).argmax()
    up[axis] = np.sign(tall[axis])
    if tall @ up < _UPRIGHT:
        raise UserError(f"{file}: its skeleton does not stand upright when no joint is turned")
    left = _unit(hips - (hips @ up) * up)
    return np.stack([left, up, np.cross(left, up)], axis=1)


def _poses(
    places: dict[str, np.ndarray], standing: dict[str, np.ndarray], head: Rotation, rest: dict[str, np.ndarray]
) -> np.ndarray:
    """Poses (T,24,3) from places (T,3) of the joints and those at rest, both with y up, and turns of the head."""
    turns = {"pelvis": _turn_of("hip", "spine", "hip", places, standing)}
    chest = _turn_of("shoulder", "chest", "collar", places, standing)
    bend = Rotation.from_rotvec((turns["pelvis"].inv() * chest).as_rotvec() / 3)
    nod = Rotation.from_rotvec((chest.inv() * head).as_rotvec() / 2)
    local = {"pelvis": turns["pelvis"], "spine1": bend, "spine2": bend, "spine3": bend, "neck": nod, "head": nod}
    for side, sign in (("left", 1), ("right", -1)):
        names = [f"{side}_{part}" for part in ("collar", "shoulder", "elbow", "wrist")]
        shrug = _arc(_way(standing, *names[:2]), chest.inv().apply(_way(places, *names[:2])))
        upper, lower = _limb(names[1:], chest * shrug, np.array([0.0, -sign, 0.0]), places, rest)
        local |= dict(zip(names, (shrug, (chest * shrug).inv() * upper, upper.inv() * lower), strict=False))
        names = [f"{side}_{part}" for part in ("hip", "knee", "ankle", "foot")]
        thigh, shin = _limb(names[:3], turns["pelvis"], np.array([1.0, 0.0, 0.0]), places, rest, one_way=True)
        foot = _arc(_way(rest, *names[2:]), shin.inv().apply(_way(places, *names[2:])), _MOST_AT_ANKLE)
        local |= dict(zip(names, (turns["pelvis"].inv() * thigh, thigh.inv() * shin, foot), strict=False))
    still = Rotation.identity(len(head))
    return np.stack([local.get(name, still).as_rotvec() for name in SMPL24], axis=1)


def _limb(
    names: list[str],
    above: Rotation,
    hinge: np.ndarray,
    places: dict[str, np.ndarray],
    rest: dict[str, np.ndarray],
    one_way: bool = False,
) -> tuple[Rotation, Rotation]:
    """Turns of the upper and the lower half of a limb that bends about `hinge` (3,), at rest; `one_way`, never back.

    Where the limb is straight, nothing says how it is twisted; it then keeps the hinge of the part above.
    """
    upper, lower = _way(places, *names[:2]), _way(places, *names[1:])
    upper_rest, lower_rest = _way(rest, *names[:2]), _way(rest, *names[1:])
    normal = np.cross(upper, lower)
    trust = np.clip((np.linalg.norm(normal, axis=-1, keepdims=True) - _STRAIGHT) / (_BENT - _STRAIGHT), 0, 1)
    usual = _across(above.apply(hinge), upper)
    if one_way:
        trust = trust * ((normal * usual).sum(-1, keepdims=True) > 0)
    # the usual one keeps a small say, so that two that are opposite do not cancel out
    axis = _across(trust * _unit(normal) + (1.001 - trust) * usual, upper)
    turn = _from_to((upper_rest, _across(hinge, upper_rest)), (upper, axis))
    return turn, turn * _arc(lower_rest, turn.inv().apply(lower))


def _turn_of(
    sides: str, joint: str, ends: str, places: dict[str, np.ndarray], standing: dict[str, np.ndarray]
) -> Rotation:
    """How a part of the trunk is turned from rest, known by its `sides` and the way from a joint to those of `ends`."""
    frames = []
    for joints in (standing, places):
        across = joints[f"left_{sides}"] - joints[f"right_{sides}"]
        along = (joints[f"left_{ends}"] + joints[f"right_{ends}"]) / 2 - joints[joint]
        frames.append((_unit(across), _across(along, across)))
    return _from_to(*frames)


def _way(joints: dict[str, np.ndarray], start: str, end: str) -> np.ndarray:
    """Unit vectors (...,3) from joint to joint."""
    return _unit(joints[end] - joints[start])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _across(vectors: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The unit vectors nearest to `vectors` that are at right angles to `axis`."""
    axis = _unit(axis)
    return _unit(vectors - (vectors * axis).sum(-1, keepdims=True) * axis)


def _from_to(before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> Rotation:
    """The turns (T,) that bring one pair of orthogonal unit vectors (3,) onto another (T,3)."""
    bases = [np.stack([x, y, np.cross(x, y)], axis=-1) for x, y in (before, after)]
    return Rotation.from_matrix(bases[1] @ bases[0].T)


def _arc(before: np.ndarray, after: np.ndarray, most: float = np.pi) -> Rotation:
    """The shortest turns (T,) from a unit vector (3,) to others (T,3), by at most `most` radians."""
    axis = np.cross(before, after)
    angle = np.arctan2(np.linalg.norm(axis, axis=-1), after @ before)
    return Rotation.from_rotvec(np.minimum(angle, most)[:, None] * _unit(axis))


def read_bvh(file: Path) -> Skeleton:
    """Read a BVH file; UserError when it is missing or damaged, or holds no frame."""
    existing(file, _REMEDY)
    try:
        hierarchy, _, motion = file.read_text().partition("MOTION")
        joints = _hierarchy(iter(hierarchy.split()))
        words = motion.split()
        count, step = int(words[words.index("Frames:") + 1]), float(words[words.index("Time:") + 1])
        width = sum(len(joint.channels) for joint in joints)
        values = np.array(words[words.index("Time:") + 2 :], float).reshape(count, width)
    except (OSError, ValueError, IndexError, KeyError, StopIteration, RecursionError) as error:
        raise UserError(f"{file} cannot be read as BVH ({error or 'it is cut off'}); {_REMEDY}") from error
    if not (count and joints and step > 0 and np.isfinite(values).all()):
        raise UserError(f"{file} holds no motion; {_REMEDY}")
    return _moved(joints, values, step)


class _Joint(NamedTuple):
    name: str
    parent: int  # -1 for the first one
    offset: np.ndarray
    channels: list[str]


def _hierarchy(words: Iterator[str]) -> list[_Joint]:
    """The joints of a hierarchy, each after its parent; ends of the last bones are no joints."""
    joints: list[_Joint] = []
    open_joints: list[int] = []  # -1 for an end
    for word in words:
        if word in ("ROOT", "JOINT", "End"):
            name = next(words)
            if word == "End":
                number = -1
            else:
                number = len(joints)
                joints.append(_Joint(name, open_joints[-1] if open_joints else -1, np.zeros(3), []))
            if next(words) != "{":
                raise ValueError(f"no brace after {name}")
            open_joints.append(number)
        elif word == "OFFSET":
            offset = [float(next(words)) for _ in range(3)]
            if open_joints[-1] >= 0:
                joints[open_joints[-1]].offset[:] = offset
        elif word == "CHANNELS":
            joints[open_joints[-1]].channels.extend(next(words) for _ in range(int(next(words))))
        elif word == "}":
            open_joints.pop()
    if open_joints:
        raise ValueError("a brace is not closed")
    return joints


def _moved(joints: list[_Joint], values: np.ndarray, step: float) -> Skeleton:
    """The skeleton in every frame, of the values (T,C) of all channels."""
    places, rest, turns, column = [], [], [], 0
    for joint in joints:
        channels = [channel.lower() for channel in joint.channels]
        own = values[:, column : column + len(channels)]
        column += len(channels)
        turning = [number for number, channel in enumerate(channels) if channel.endswith("rotation")]
        order = "".join(channels[number][0] for number in turning).upper()
        turn = Rotation.from_euler(order, own[:, turning], degrees=True) if order else Rotation.identity(len(values))
        offset = np.repeat(joint.offset[None], len(values), axis=0)
        for number, channel in enumerate(channels):
            if channel.endswith("position"):
                offset[:, "xyz".index(channel[0])] = own[:, number]
        if joint.parent < 0:
            places.append(offset)
            rest.append(joint.offset)
            turns.append(turn)
        else:
            places.append(places[joint.parent] + turns[joint.parent].apply(offset))
            rest.append(rest[joint.parent] + joint.offset)
            turns.append(turns[joint.parent] * turn)
    return Skeleton([joint.name for joint in joints], np.stack(places, axis=1), turns, np.array(rest), step)
