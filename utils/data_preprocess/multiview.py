"""A recording of real people with 3D truth that is free for every use: the demo of Pose2Sim (BSD 3-clause).

Somebody balances on a beam before four calibrated cameras, 100 frames at 60 frames/s. The wheel of version 0.6.0 holds
the videos; that of 0.4.0 the calibration, 21 joints that its authors triangulated from OpenPose's and filtered, and
OpenPose's own files. The wheels are read as they are, or unpacked. It is there to report on, not to choose by.
"""

import functools
import json
import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np

from utils.data_preprocess.conversion import Converted, Settings, Task, convert_all, write_image
from utils.errors import UserError, reason_for
from utils.files import existing, save_text, write_atomically
from utils.image import BOX_UNIT
from utils.joints import BODY25, LIMBS, SPIN24, rows

log = logging.getLogger("boa")

CAMERAS = ("cam01", "cam02", "cam03", "cam04")
VERSIONS = ("0.6.0", "0.4.0")  # whose wheels have the videos, and the rest
OWN = "openpose"  # what names the recording's own 2D joints
_TRIAL = "Pose2Sim/Demo/S00_Demo_Session/S00_P00_Participant/S00_P00_T01_BalancingTrial"
_CALIBRATION = "Pose2Sim/Demo/calibration/Calib.qca.txt"
_TRUTH = "Pose2Sim/Demo/opensim/Balancing_for_IK.trc"
_LARGEST = 64 * 2**20  # bytes of a file in a wheel
_SUBPIXELS = 64  # of Qualisys, to a px
_TRC_HEADER = 5  # lines
# of the mean of the joints from where the truth has it, over the side of the box: beyond it, it is somebody else
_ASTRAY = 0.25
# OpenPose's model BODY_25B, which has a neck and a top of the head of its own in place of BODY_25's middles
_BODY25B = [
    *("OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar", "OP LShoulder", "OP RShoulder", "OP LElbow", "OP RElbow"),
    *("OP LWrist", "OP RWrist", "OP LHip", "OP RHip", "OP LKnee", "OP RKnee", "OP LAnkle", "OP RAnkle", "", ""),
    *("OP LBigToe", "OP LSmallToe", "OP LHeel", "OP RBigToe", "OP RSmallToe", "OP RHeel"),
]


class Followed(NamedTuple):
    """A frame of a video: its number and picture (H,W,3) uint8 RGB; the person, where they are seen.

    keypoints: (49,3) px and confidence; center (2,) px and scale of the box
    """

    index: int
    rgb: np.ndarray
    keypoints: np.ndarray | None = None
    center: np.ndarray | None = None
    scale: float = 0.0


# goes through a video with its 2D joints (`mediapipe` or a path) after one person
Follow = Callable[[Path, str], Iterable[Followed]]


class Camera(NamedTuple):
    """rotation (3,3) from world to camera axes (x right, y down, z forward), position (3,) m, intrinsics (3,3) px,
    distortion (4,) k1 k2 p1 p2."""

    rotation: np.ndarray
    position: np.ndarray
    intrinsics: np.ndarray
    distortion: np.ndarray

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (...,3) m -> camera axes."""
        return (points - self.position) @ self.rotation.T

    def project(self, in_camera: np.ndarray) -> np.ndarray:
        """Points (N,3) m in camera axes -> (N,2) px."""
        return cv2.projectPoints(in_camera, np.zeros(3), np.zeros(3), self.intrinsics, self.distortion)[0][:, 0]

    def ray(self, place: np.ndarray) -> np.ndarray:
        """Where in camera axes, (3,) with z = 1, what is seen at a place (2,) px lies."""
        return np.append(cv2.undistortPoints(place[None], self.intrinsics, self.distortion), 1.0)


def convert(
    root: Path, output: Path, follow: Follow, keypoints: str = "mediapipe", settings: Settings = Settings()
) -> list[str]:
    """Write the frames in which the person is followed as images, and truth and 2D joints into `output`.

    Columns: imgname, center, scale, `keypoints` (N,49,3) px and confidence, `S` (N,24,4) m in camera axes around the
    middle of the hips, confidence 1 for the twelve joints of the limbs, `ray` (N,3) in these axes through the center.

    Args:
        root: MULTIVIEW_ROOT, with the two wheels or what is in them; gets videos/, openpose/ and imageFiles/
        output: multiview.npz
        follow: see Follow; a module's function where there are several workers
        keypoints: `mediapipe`, `openpose` for the recording's own, or a folder with an AlphaPose file cam01.json or a
            folder cam01 of OpenPose's BODY_25 files for each camera

    Returns the names of the cameras that could not be converted. Raises UserError when none can, or, if strict, one
    cannot.
    """
    tasks = [
        Task(
            camera,
            output.parent / "parts" / output.stem / f"{camera}.npz",
            functools.partial(_convert_camera, root, camera, follow, keypoints, settings.overwrite),
            functools.partial(_check_camera, root, camera, keypoints),
        )
        for camera in CAMERAS
    ]
    settings = settings._replace(recorded={"keypoints": keypoints})
    return convert_all(tasks, "multiview", root, settings, output, "keypoints")


def read_cameras(root: Path) -> dict[str, Camera]:
    """The calibration (Qualisys) by the names of CAMERAS; UserError when it is missing or damaged."""
    content, where = _read(root, _CALIBRATION)
    try:
        found = {
            camera.attrib["serial"].replace("_", ""): camera
            for camera in ElementTree.fromstring(content).iter("camera")
        }
        return {name: _camera(found[name]) for name in CAMERAS}
    except (ElementTree.ParseError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{where} is no calibration of four cameras ({reason_for(error)}); {_remedy(root)}") from error


def _camera(element: ElementTree.Element) -> Camera:
    outer, inner = (
        {name: float(value) for name, value in element.find(part).attrib.items() if name != "model"}
        for part in ("transform", "intrinsic")
    )
    # Qualisys' cameras look along -z, with y up
    rotation = np.diag([1, -1, -1]) @ [[outer[f"r{row}{column}"] for column in (1, 2, 3)] for row in (1, 2, 3)]
    intrinsics = np.array(
        [
            [inner["focalLengthU"], 0, inner["centerPointU"]],
            [0, inner["focalLengthV"], inner["centerPointV"]],
            [0, 0, _SUBPIXELS],
        ]
    )
    distortion = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1", "tangentalDistortion2")
    position = np.array([outer[axis] for axis in "xyz"]) / 1000
    return Camera(rotation, position, intrinsics / _SUBPIXELS, np.array([inner[name] for name in distortion]))


def read_truth(root: Path) -> np.ndarray:
    """The joints LIMBS (F,12,3) m in the world's axes, z up; frame k is frame k of each video.

    Raises UserError when the file is missing or damaged.
    """
    content, where = _read(root, _TRUTH)
    try:
        lines = content.decode().splitlines()
        names = [name for name in lines[_TRC_HEADER - 2].split("\t")[2:] if name]
        numbers = np.array(
            [line.split("\t")[: 2 + 3 * len(names)] for line in lines[_TRC_HEADER:] if line.strip()], float
        )
        joints = numbers[:, 2:].reshape(len(numbers), len(names), 3)
        limbs = joints[:, rows([name.removeprefix("OP ") for name in LIMBS.values()], names)]
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"{where} holds no 3D joints ({reason_for(error)}); {_remedy(root)}") from error
    if not len(limbs) or not np.isfinite(limbs).all():
        raise UserError(f"{where} holds joints that are not finite, or none; {_remedy(root)}")
    return limbs[..., [2, 0, 1]]  # y was up


def _convert_camera(root: Path, name: str, follow: Follow, keypoints: str, overwrite: bool) -> Converted:
    camera = read_cameras(root)[name]
    truth = camera.to_camera(read_truth(root))
    video = _unpack_video(root, name)
    detected = str(keypoints if keypoints == "mediapipe" else _keypoint_files(root, name, keypoints, overwrite))
    columns: dict[str, list] = {key: [] for key in ("imgname", "center", "scale", "keypoints", "S", "ray")}
    dropped: Counter[str] = Counter()
    for frame in follow(video, detected):
        if reason := _unusable(frame, truth, camera):
            dropped[reason] += 1
            continue
        image = f"imageFiles/{name}/image_{frame.index:05d}.jpg"
        if overwrite or not (root / image).exists():
            write_image(root / image, frame.rgb[..., ::-1])
        joints, ray = _spin_joints(truth[frame.index]), camera.ray(np.asarray(frame.center, np.float64))
        row = (image, frame.center, frame.scale, frame.keypoints, joints, ray)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    if not columns["imgname"]:
        raise UserError(f"{video}: the person of the recording is in no frame by --keypoints {keypoints}")
    arrays = {key: np.array(values) for key, values in columns.items()}
    return Converted(arrays, dict(dropped))


def _unusable(frame: Followed, truth: np.ndarray, camera: Camera) -> str:
    """Why a frame is left out, "" if it is not; truth (F,12,3) m in camera axes."""
    if frame.index >= len(truth):
        return "without truth"
    if frame.keypoints is None:
        return "the person is not seen"
    # the middle of the limbs, for which left and right do not matter
    projected, limbs = camera.project(truth[frame.index]), frame.keypoints[rows(LIMBS.values(), BODY25)]
    seen = limbs[:, 2] > 0
    away = limbs[seen, :2].mean(0) - projected[seen].mean(0) if seen.any() else frame.center - projected.mean(0)
    return "somebody else is followed" if np.linalg.norm(away) > _ASTRAY * BOX_UNIT * frame.scale else ""


def _spin_joints(limbs: np.ndarray) -> np.ndarray:
    """LIMBS (12,3) m -> SPIN's joints with confidence (24,4), around the middle of the hips."""
    joints = np.zeros((len(SPIN24), 4))
    slots = rows(LIMBS, SPIN24)
    joints[slots, :3] = limbs - limbs[rows(["Right Hip", "Left Hip"], LIMBS)].mean(0)
    joints[slots, 3] = 1
    return joints


def _check_camera(root: Path, name: str, keypoints: str) -> list[str]:
    lines = []
    checks = [read_cameras, read_truth, lambda root: _read(root, _video_name(name))]
    if keypoints != "mediapipe":
        checks.append(lambda root: _keypoint_files(root, name, keypoints, overwrite=False))
    for check in checks:
        try:
            check(root)
        except UserError as error:
            lines.append(str(error))
    return lines


def _video_name(camera: str) -> str:
    return f"{_TRIAL}/videos/{camera}.mp4"


def _unpack_video(root: Path, camera: str) -> Path:
    """The video of a camera as a file of its own, for the reader of videos and for `boa.py --video`."""
    content, _ = _read(root, _video_name(camera))
    file = root / "videos" / f"{camera}.mp4"
    write_atomically(file, lambda path: path.write_bytes(content))
    return file


def _keypoint_files(root: Path, camera: str, keypoints: str, overwrite: bool) -> Path:
    """Where the 2D joints of a camera are, in formats that boa.py reads; the recording's own are brought into one."""
    if keypoints == OWN:
        return _unpack_openpose(root, camera, overwrite)
    places = [Path(keypoints) / camera, Path(keypoints) / f"{camera}.json"]
    found = next((place for place in places if place.exists()), None)
    return existing(
        found or places[0], f"give --keypoints mediapipe, {OWN}, or a folder with cam01.json or cam01/, ..."
    )


def _unpack_openpose(root: Path, camera: str, overwrite: bool) -> Path:
    """Write the recording's own 2D joints, BODY_25B, as OpenPose writes BODY_25, a file a frame -> their folder."""
    folder = root / OWN / camera
    for frame in range(len(read_truth(root))):
        file = folder / f"{camera}_{frame:012d}_keypoints.json"
        if overwrite or not file.exists():
            content, where = _read(root, f"Pose2Sim/Demo/pose/cam{int(camera[-2:])}_json/{camera}.{frame:04d}.json")
            save_text(file, json.dumps({"people": _as_body25(content, f"{where}; {_remedy(root)}")}))
    return folder


def _as_body25(content: bytes, where: str) -> list[dict[str, list[float]]]:
    try:
        people = np.array([person["pose_keypoints_2d"] for person in json.loads(content)["people"]], float)
        people = people.reshape(len(people), len(_BODY25B), 3)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"not OpenPose's joints ({reason_for(error)}): {where}") from error
    result = np.zeros((len(people), len(BODY25), 3))
    named = [name for name in _BODY25B if name]
    result[:, rows(named, BODY25)] = people[:, rows(named, _BODY25B)]
    return [{"pose_keypoints_2d": joints.ravel().tolist()} for joints in result]


def _read(root: Path, name: str) -> tuple[bytes, Path]:
    """A file of the demo by its path in the wheel -> content, and where it was found, for messages.

    It is looked for among what is unpacked, in root or a folder of it, then in the wheels in root.
    Raises UserError when it is in none of them, is too large, or a wheel is damaged.
    """
    existing(root, _remedy(root))
    for folder in (root, *sorted(root.iterdir())):
        file = folder / name
        if file.is_file():
            _check_size(file.stat().st_size, file, root)
            return file.read_bytes(), file
    for wheel in sorted(root.glob("pose2sim-*.whl")):
        try:
            with zipfile.ZipFile(wheel) as archive:
                if name in archive.namelist():
                    # no more than this is unpacked, whatever else the archive says
                    _check_size(archive.getinfo(name).file_size, wheel, root)
                    return archive.read(name), wheel / name
        except (OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{wheel} cannot be read ({reason_for(error)}); {_remedy(root)}") from error
    raise UserError(f"{root} lacks {name} of Pose2Sim {_version_with(name)}; {_remedy(root)}")


def _check_size(size: int, file: Path, root: Path) -> None:
    if size > _LARGEST:
        raise UserError(f"{file} is too large for the demo of Pose2Sim, {size} bytes; {_remedy(root)}")


def _version_with(name: str) -> str:
    return VERSIONS[0] if name.startswith(_TRIAL) else VERSIONS[1]


def _remedy(root: Path) -> str:
    commands = " and ".join(f"`pip download --no-deps -d {root} pose2sim=={version}`" for version in VERSIONS)
    return f"run {commands}, or set MULTIVIEW_ROOT in config.py (docs/datasets.md, Multiview)"
