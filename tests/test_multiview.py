"""The recording of real people with 3D truth: toys of its wheels, converted, read and scored."""

import json
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from benchmarks import footage_truth, real
from benchmarks.ablation import Run
from datasets import multiview as stream
from datasets.base import batches
from footage.keypoints import KeypointFiles
from footage.smoothing import smooth_joints
from footage.video import Video
from utils.data_preprocess import multiview
from utils.data_preprocess.conversion import Settings
from utils.data_preprocess.multiview import CAMERAS, Followed
from utils.errors import UserError
from utils.evaluation import Scorer, score_multiview
from utils.image import Crop, read_rgb
from utils.joints import BODY25, JOINTS49, LIMBS, MEDIAPIPE33, SPIN24, rows, same_joint_rows
from utils.structures import Prediction

FRAMES = 4
SIZE = (180, 320)  # px, width and height
FOCAL, CENTRE = 260.0, np.array([91.0, 158.0])
MIDDLE = np.array([0.2, -0.3, 1.0])  # of the person, m
DEMO = "Pose2Sim/Demo"
TRIAL = f"{DEMO}/S00_Demo_Session/S00_P00_Participant/S00_P00_T01_BalancingTrial"
# rows of the recording's 3D joints, and of OpenPose's BODY_25B
MARKERS = (
    "RHip RKnee RAnkle RBigToe RSmallToe RHeel LHip LKnee LAnkle LBigToe LSmallToe LHeel Neck Head Nose "
    "RShoulder RElbow RWrist LShoulder LElbow LWrist"
).split()
BODY25B = (
    "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee RKnee LAnkle RAnkle "
    "Neck Head LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel"
).split()
STRAIGHT = np.eye(3)
PLAIN = [name.removeprefix("OP ") for name in LIMBS.values()]


def markers() -> np.ndarray:
    """Where the markers are, (F,21,3) m in a world whose z is up; all move by 2 cm a frame."""
    places = np.random.default_rng(3).uniform(-0.6, 0.6, (len(MARKERS), 3))
    return MIDDLE + places + 0.02 * np.arange(FRAMES)[:, None, None]


def pose_of(camera: int) -> tuple[np.ndarray, np.ndarray]:
    """Axes right, down, forward (3,3) in the world and position (3,) m of a camera that looks at the middle."""
    angle = 0.3 + 1.5 * camera
    position = np.array([4 * np.cos(angle), 4 * np.sin(angle), 1.7])
    forward = (MIDDLE - position) / np.linalg.norm(MIDDLE - position)
    right = np.cross(forward, [0, 0, 1]) / np.linalg.norm(np.cross(forward, [0, 0, 1]))
    return np.stack([right, np.cross(forward, right), forward]), position


def in_camera(camera: int) -> np.ndarray:
    """The markers (F,21,3) m along the camera's axes."""
    axes, position = pose_of(camera)
    return np.stack([(markers() - position) @ axis for axis in axes], axis=-1)


def in_image(camera: int) -> np.ndarray:
    """The markers (F,21,2) px, by the formula of a pinhole."""
    x, y, z = np.moveaxis(in_camera(camera), -1, 0)
    return FOCAL * np.stack([x / z, y / z], axis=-1) + CENTRE


def calibration() -> str:
    """As Qualisys writes it: a camera looks along -z with y up; lengths in mm, 64ths of a pixel."""
    cameras = ""
    for camera in range(4):
        axes, position = pose_of(camera)
        turned = axes * np.array([[1], [-1], [-1]])
        outer = {f"r{row + 1}{column + 1}": turned[row, column] for row in range(3) for column in range(3)}
        outer |= dict(zip("xyz", 1000 * position, strict=True))
        inner = {"focalLengthU": 64 * FOCAL, "focalLengthV": 64 * FOCAL}
        inner |= {"centerPointU": 64 * CENTRE[0], "centerPointV": 64 * CENTRE[1], "tangentalDistortion2": 0}
        inner |= {"radialDistortion1": 0, "radialDistortion2": 0, "tangentalDistortion1": 0}
        transform, intrinsic = (
            " ".join(f'{name}="{value:.12f}"' for name, value in numbers.items()) for numbers in (outer, inner)
        )
        cameras += f'<camera serial="cam_0{camera + 1}"><transform {transform}/><intrinsic {intrinsic}/></camera>'
    return f"<?xml version='1.0' encoding='ASCII'?><calibration><cameras>{cameras}</cameras></calibration>"


def trc() -> str:
    """The markers as OpenSim writes them: metres, y up, tabulators."""
    header = ["PathFileType\t4", "DataRate\tNumFrames", f"60\t{FRAMES}"]
    header += ["Frame#\tTime\t" + "\t\t\t".join(MARKERS) + "\t\t", "\t\tX1\tY1\tZ1", ""][:2]
    lines = []
    for frame, points in enumerate(markers()[..., [1, 2, 0]]):
        numbers = [frame + 1, frame / 60, *points.ravel()]
        lines.append("\t".join(f"{number:.9f}" for number in numbers))
    return "\n".join([*header, *lines]) + "\n"


def openpose(camera: int, frame: int) -> str:
    """Everybody whom OpenPose saw: somebody small in the corner, and the person, whose nose was not found."""
    joints = np.zeros((2, len(BODY25B), 3))
    for row, name in enumerate(BODY25B):
        joints[0, row] = [5 + row % 4, 5 + row // 4, 0.9]
        if name in MARKERS and name != "Nose":
            joints[1, row] = [*in_image(camera)[frame, MARKERS.index(name)], 0.8]
    return json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": person.ravel().tolist()} for person in joints]})


def video(folder: Path) -> bytes:
    """Frame t is grey of brightness 40 t."""
    file = folder / "toy.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 60, SIZE)
    for frame in range(FRAMES):
        writer.write(np.full((SIZE[1], SIZE[0], 3), 40 * frame, np.uint8))
    writer.release()
    content = file.read_bytes()
    file.unlink()
    return content


def contents(folder: Path) -> dict[str, dict[str, bytes]]:
    """What is in the wheels: version -> path -> content."""
    numbered = list(enumerate(CAMERAS))
    older: dict[str, str] = {f"{DEMO}/calibration/Calib.qca.txt": calibration()}
    older[f"{DEMO}/opensim/Balancing_for_IK.trc"] = trc()
    for camera, name in numbered:
        for frame in range(FRAMES):
            older[f"{DEMO}/pose/cam{camera + 1}_json/{name}.{frame:04d}.json"] = openpose(camera, frame)
    newer = {f"{TRIAL}/videos/{name}.mp4": video(folder) for _, name in numbered}
    return {"0.6.0": newer, "0.4.0": {path: text.encode() for path, text in older.items()}}


def write_wheels(root: Path, changed: dict[str, bytes | None] = {}) -> Path:  # noqa: B006
    """The two wheels, with some files changed or, where they are None, left out -> their folder."""
    root.mkdir(parents=True, exist_ok=True)
    for version, files in contents(root).items():
        with zipfile.ZipFile(root / f"pose2sim-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in files.items():
                if (content := changed.get(Path(path).name, content)) is not None:
                    archive.writestr(path, content)
    return root


def follow(video: Path, keypoints: str) -> Iterator[Followed]:
    """Whoever is second in the detector's files, in a box of 250 px."""
    files = KeypointFiles(Path(keypoints), Video(str(video)))
    for frame in islice(Video(str(video)), FRAMES):
        yield Followed(frame.index, frame.rgb, files.detect_all(frame)[1], CENTRE, 1.25)


def follow_wrongly(video: Path, keypoints: str) -> Iterator[Followed]:
    """As `follow`, but nobody in the first frame, somebody else in the second, and a frame too many."""
    for frame in follow(video, keypoints):
        if frame.index == 0:
            yield Followed(0, frame.rgb)
        elif frame.index == 1:
            aside = frame.keypoints + [120, 0, 0]
            yield frame._replace(keypoints=aside, center=frame.center + [120, 0])
        else:
            yield frame
    yield frame._replace(index=FRAMES)


def convert(root: Path, output: Path, **more) -> dict[str, np.ndarray]:
    multiview.convert(root, output, more.pop("follow", follow), more.pop("keypoints", "openpose"), Settings(**more))
    return dict(np.load(output))


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> tuple[Path, Path]:
    """Wheels and what became of them: images' folder, annotations."""
    root = write_wheels(tmp_path_factory.mktemp("multiview"))
    convert(root, root / "multiview.npz")
    return root, root / "multiview.npz"


@pytest.fixture
def columns(recording) -> dict[str, np.ndarray]:
    return dict(np.load(recording[1]))


def test_truth_is_along_the_axes_of_each_camera_around_the_hips(columns):
    for camera, name in enumerate(CAMERAS):
        of_camera = [name in str(image) for image in columns["imgname"]]
        limbs = in_camera(camera)[:, rows(PLAIN, MARKERS)]
        limbs = limbs - (limbs[:, PLAIN.index("RHip")] + limbs[:, PLAIN.index("LHip")])[:, None] / 2
        truth = columns["S"][of_camera]
        np.testing.assert_allclose(truth[:, rows(LIMBS, SPIN24), :3], limbs, atol=1e-6)
        assert (truth[..., 3].sum(1) == len(LIMBS)).all()


def test_truth_is_seen_where_it_was_projected_from(recording):
    cameras, truth = multiview.read_cameras(recording[0]), multiview.read_truth(recording[0])
    for camera, name in enumerate(CAMERAS):
        for frame in range(FRAMES):
            projected = cameras[name].project(cameras[name].to_camera(truth[frame]))
            np.testing.assert_allclose(projected, in_image(camera)[frame, rows(PLAIN, MARKERS)], atol=1e-4)


def test_own_joints_keep_their_names(columns):
    """BODY_25B has as many rows as BODY_25, in another order."""
    for index, name in enumerate(columns["imgname"]):
        camera, frame = CAMERAS.index(Path(str(name)).parent.name), int(Path(str(name)).stem[-5:])
        for joint in ("RWrist", "LAnkle", "LSmallToe"):
            given = columns["keypoints"][index, JOINTS49.index(f"OP {joint}")]
            np.testing.assert_allclose(given, [*in_image(camera)[frame, MARKERS.index(joint)], 0.8], atol=1e-9)
        for unseen in ("OP Nose", "OP Neck", "OP MidHip", "OP REye"):
            assert not columns["keypoints"][index, same_joint_rows(unseen)].any()


def test_images_are_the_frames_of_the_videos_in_order(recording, columns):
    images = [f"imageFiles/{camera}/image_{frame:05d}.jpg" for camera in CAMERAS for frame in range(FRAMES)]
    assert columns["imgname"].tolist() == images
    for frame in range(FRAMES):
        rgb = read_rgb(recording[0] / images[frame])
        assert rgb.shape == (SIZE[1], SIZE[0], 3)
        assert abs(rgb.mean() - 40 * frame) < 4


def test_unpacked_wheels_give_the_same(recording, tmp_path):
    for place, version in (("one", "0.6.0"), ("other", "0.4.0")):
        with zipfile.ZipFile(recording[0] / f"pose2sim-{version}-py3-none-any.whl") as archive:
            archive.extractall(tmp_path / place)
    there, again = dict(np.load(recording[1])), convert(tmp_path, tmp_path / "multiview.npz")
    for name in there:
        np.testing.assert_array_equal(there[name], again[name])


@pytest.mark.parametrize(
    ("lost", "version"),
    [
        ("cam03.mp4", "0.6.0"),
        ("Calib.qca.txt", "0.4.0"),
        ("Balancing_for_IK.trc", "0.4.0"),
        ("cam02.0001.json", "0.4.0"),
    ],
)
def test_what_is_missing_is_named_with_the_commands_that_get_it(tmp_path, caplog, lost, version):
    root = write_wheels(tmp_path, {lost: None})
    with pytest.raises(UserError):
        convert(root, tmp_path / "multiview.npz", strict=True)
    message = next(record.getMessage() for record in caplog.records if lost in record.getMessage())
    assert f"Pose2Sim {version}" in message
    for wanted in ("0.6.0", "0.4.0"):
        assert f"pip download --no-deps -d {root} pose2sim=={wanted}" in message
    caplog.clear()
    with pytest.raises(UserError):
        convert(root, tmp_path / "other.npz", dry_run=True)
    assert any(lost in record.getMessage() for record in caplog.records)


def test_a_folder_without_wheels_says_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match="pip download"):
        multiview.read_truth(tmp_path)
    with pytest.raises(UserError, match="pip download"):
        multiview.read_truth(tmp_path / "absent")


_BOMB = "<!DOCTYPE b [" + "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10 if k else "boom"}">' for k in range(12))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Calib.qca.txt", b"no calibration"),
        ("Calib.qca.txt", calibration().replace("cam_03", "cam_09").encode()),
        ("Calib.qca.txt", calibration().replace('r22="', 'r22="one').encode()),
        ("Calib.qca.txt", (_BOMB + "]><calibration>&e11;</calibration>").encode()),
        ("Balancing_for_IK.trc", b""),
        ("Balancing_for_IK.trc", b"\xff\xfe" * 100),
        ("Balancing_for_IK.trc", trc().replace("RWrist", "RThumb").encode()),
        ("Balancing_for_IK.trc", "\n".join(trc().splitlines()[:5]).encode()),
        ("Balancing_for_IK.trc", trc().replace("\t0.016666667\t", "\tnan\tnan").encode()),
        ("cam01.0002.json", b"[" * 100_000),
        ("cam01.0002.json", b'{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}'),
        ("cam01.0002.json", b'{"people": 7}'),
    ],
)
def test_damaged_files_are_named(tmp_path, caplog, name, content):
    root = write_wheels(tmp_path, {name: content})
    with pytest.raises(UserError):
        convert(root, tmp_path / "multiview.npz", strict=True)
    assert any(name in record.getMessage() for record in caplog.records)
    assert not (tmp_path / "multiview.npz").exists()


def test_a_damaged_wheel_is_named(tmp_path):
    root = write_wheels(tmp_path)
    wheel = root / "pose2sim-0.4.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"pose2sim-0\.4\.0.*pip download"):
        multiview.read_truth(root)


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path):
    root = write_wheels(tmp_path, {"Balancing_for_IK.trc": b"0" * (65 * 2**20)})
    with pytest.raises(UserError, match="too large"):
        multiview.read_truth(root)


def test_frames_of_somebody_else_are_left_out_and_counted(recording, tmp_path, caplog):
    caplog.set_level("INFO")
    columns = convert(recording[0], tmp_path / "multiview.npz", follow=follow_wrongly)
    assert len(columns["imgname"]) == 4 * (FRAMES - 2)
    log = " ".join(record.getMessage() for record in caplog.records)
    for reason in ("the person is not seen", "somebody else is followed", "without truth"):
        assert f"4 frames dropped: {reason}" in log


def test_exchanged_sides_are_nobody_else(recording, tmp_path):
    """Left and right are the run's business; the truth must not put them straight."""

    def exchanged(video: Path, keypoints: str) -> Iterator[Followed]:
        for frame in follow(video, keypoints):
            swapped = [f"OP {'L' if name[3] == 'R' else 'R'}{name[4:]}" if name[3] in "RL" else name for name in BODY25]
            keypoints = frame.keypoints.copy()
            keypoints[: len(BODY25)] = frame.keypoints[rows(swapped, JOINTS49)]
            yield frame._replace(keypoints=keypoints)

    assert len(convert(recording[0], tmp_path / "multiview.npz", follow=exchanged)["imgname"]) == 4 * FRAMES


def test_other_keypoints_replace_the_first(recording, tmp_path):
    """The file records what it was made with; a folder holds what any detector wrote of each camera."""
    output = tmp_path / "multiview.npz"
    own = convert(recording[0], output)["keypoints"]
    people = [{"image_id": f"{frame}.jpg", "keypoints": [90.0, 150.0, 0.9] * 17} for frame in range(FRAMES)]
    for camera in CAMERAS:
        (tmp_path / f"{camera}.json").write_text(json.dumps([person for pair in people for person in (pair, pair)]))
    other = convert(recording[0], output, keypoints=str(tmp_path))["keypoints"]
    assert not np.array_equal(own, other)
    assert (other[:, JOINTS49.index("OP LWrist"), :2] == [90, 150]).all()
    with pytest.raises(UserError):
        convert(recording[0], output, keypoints=str(tmp_path / "absent"))


def test_a_second_time_reads_no_video(recording):
    def refuse(video: Path, keypoints: str) -> Iterator[Followed]:
        raise AssertionError("the video was read again")

    convert(*recording, follow=refuse)


def test_stream_gives_each_camera_as_a_sequence_with_what_the_detector_saw(recording, columns):
    frames, missing = stream.open_stream(*recording, "-")
    assert not missing and len(frames) == 4 * FRAMES and frames.step == 1
    for batch, index in zip(batches(frames.part(2, 5), 1), range(0, 10, 2), strict=True):
        assert batch["sequence"] == [Path(str(columns["imgname"][index])).parent.name]
        crop = Crop(columns["center"][index], columns["scale"][index])
        given = crop.exact_points(columns["keypoints"][index])
        np.testing.assert_allclose(batch["keypoints_2d"][0].numpy(), given, atol=1e-6)
        # back to the image by what footage's frames carry, too
        in_image = batch["center"][0].numpy() + batch["keypoints_2d"][0, :, :2].numpy() * 100 * batch["scale"].item()
        seen = columns["keypoints"][index, :, 2] > 0
        np.testing.assert_allclose(in_image[seen] - 0.5, batch["keypoints_px"][0, seen, :2].numpy(), atol=1e-3)


def predicted(columns: dict[str, np.ndarray], turn: np.ndarray = STRAIGHT) -> Prediction:
    """The truth itself, turned and moved away, as a network's 49 joints."""
    joints = np.zeros((len(columns["S"]), len(JOINTS49), 3))
    joints[:, rows(LIMBS.values(), JOINTS49)] = columns["S"][:, rows(LIMBS, SPIN24), :3] @ turn.T + [1, 2, 3]
    nothing = torch.zeros(len(joints), 1)
    points = torch.as_tensor(columns["keypoints"][..., :2], dtype=torch.float32)
    return Prediction(nothing, nothing, nothing, torch.as_tensor(joints, dtype=torch.float32), nothing, points)


def frame_of(columns: dict[str, np.ndarray]) -> dict:
    straight_ahead = np.array([[0.0, 0.0, 3.0]] * len(columns["S"]))
    tensors = {"joints_3d": columns["S"], "keypoints_2d": columns["keypoints"], "ray": straight_ahead}
    return {name: torch.as_tensor(value, dtype=torch.float32) for name, value in tensors.items()}


def test_score_of_the_truth_is_zero_wherever_it_stands(columns):
    _, _, scores = score_multiview(predicted(columns), frame_of(columns), {}, torch.zeros(0))
    for name in ("mpjpe", "pampjpe", "reprojection"):
        np.testing.assert_allclose(scores[name], 0, atol=1e-3)


def test_score_sees_the_camera_and_its_alignment_does_not(columns):
    quarter = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    _, _, scores = score_multiview(predicted(columns, quarter), frame_of(columns), {}, torch.zeros(0))
    limbs = columns["S"][:, rows(LIMBS, SPIN24), :3]
    moved = 1000 * np.linalg.norm(limbs @ quarter.T - limbs, axis=-1).mean(1)
    np.testing.assert_allclose(scores["mpjpe"], moved, rtol=1e-4)
    np.testing.assert_allclose(scores["pampjpe"], 0, atol=1e-3)


def test_a_network_that_looks_straight_at_the_person_is_turned_into_the_cameras_axes(columns):
    ray = np.array([0.3, -0.2, 1.0])
    across, angle = np.cross([0, 0, 1.0], ray), np.arccos(1 / np.linalg.norm(ray))
    shortest = Rotation.from_rotvec(angle * across / np.linalg.norm(across))
    frame = frame_of(columns) | {"ray": torch.as_tensor(np.tile(ray, (len(columns["S"]), 1)))}
    seen = predicted(columns, shortest.inv().as_matrix())
    np.testing.assert_allclose(score_multiview(seen, frame, {}, torch.zeros(0))[2]["mpjpe"], 0, atol=1e-3)


def test_rays_lead_through_what_is_seen_there(recording, columns):
    camera = multiview.read_cameras(recording[0])["cam03"]
    rows_of_it = [str(name).split("/")[-2] == "cam03" for name in columns["imgname"]]
    seen = camera.project(columns["ray"][rows_of_it])
    np.testing.assert_allclose(seen, columns["center"][rows_of_it], atol=1e-6)


def test_acceleration_starts_afresh_with_each_camera(recording, columns):
    frames, _ = stream.open_stream(*recording, "-")
    scorer = Scorer(lambda prediction, frame: score_multiview(prediction, frame, {}, torch.zeros(0)), frames.step)
    for index, batch in enumerate(batches(frames, 1)):
        one = {name: column[index : index + 1] for name, column in columns.items()}
        acceleration = scorer(predicted(one), batch)[0]["accel"]
        assert np.isnan(acceleration) if index % FRAMES < 2 else acceleration < 1e-3


def test_a_detectors_own_3d_is_scored_by_the_names_of_its_landmarks(columns):
    points = np.full((33, 3), np.nan)
    points[rows(LIMBS.values(), MEDIAPIPE33)] = columns["S"][0, rows(LIMBS, SPIN24), :3] + [4, 5, 6]
    one = {name: column[:1] for name, column in columns.items()}
    _, _, scores = score_multiview(real.as_prediction(real.of_landmarks(points)), frame_of(one), {}, torch.zeros(0))
    assert scores["mpjpe"][0] < 1e-3


def test_the_table_has_the_mean_over_the_cameras_and_each_of_them():
    cameras = {"cam01": {"mpjpe_mm": 100.0, "accel_mm": 4.0}, "cam02": {"mpjpe_mm": 200.0, "accel_mm": None}}
    *_, row = real.table({"network": cameras}).splitlines()
    assert row == "| network | 150 (100 200) |  |  |  |"


def test_rendered_footage_is_scored_around_the_hips_and_over_frames_that_follow_one_another():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.4, (5, len(JOINTS49), 3))
    moved = truth + rng.normal(0, 1, (5, 1, 3))
    numbers = np.array([0, 1, 2, 4, 5])
    np.testing.assert_allclose(footage_truth.scores_of(moved, truth, numbers), [0, 0, 0, 5], atol=1e-6)
    wrong = truth.copy()
    wrong[3, JOINTS49.index("OP LWrist")] += [0.12, 0, 0]  # 4 follows no two frames
    mpjpe, _, accel, _ = footage_truth.scores_of(wrong, truth, numbers)
    np.testing.assert_allclose([mpjpe, accel], [120 / 12 / 5, 0], atol=1e-6)


def test_predictions_are_matched_with_the_truth_by_the_names_of_frames(tmp_path, bodies):
    truth = np.random.default_rng(0).normal(0, 0.4, (4, len(JOINTS49), 3))
    names = [f"imageFiles/clip/image_{frame:05d}.jpg" for frame in range(4)]
    (tmp_path / "wild/3dpw_vid").mkdir(parents=True)
    np.savez(tmp_path / "wild/3dpw_vid/clip.npz", smpl_j3d=truth, imgname=np.array(names))
    np.savez(
        tmp_path / "predictions.npz",
        joints_3d=truth[1:] @ np.diag([-1.0, 1, -1]),
        turn=np.tile(np.diag([-1.0, 1, -1]), (3, 1, 1)),
        imgname=np.array(["image_00001", "image_00002", "image_00003"]),
        rotmat=np.tile(np.eye(3), (3, 24, 1, 1)),
        betas=np.zeros((3, 10)),
        time=np.arange(3) / 25,
    )
    run = Run("row", tmp_path, ["--video", str(tmp_path / "imageFiles/clip")], tmp_path, {})
    predicted, smoothed = footage_truth.score_run(run, bodies["neutral"])
    np.testing.assert_allclose(predicted, [0, 0, 0, 3], atol=1e-6)
    assert smoothed[0] > 100 and smoothed[3] == 3  # who stands is not the truth


def test_joints_are_smoothed_as_a_clip_is_saved(bodies):
    """A pose that shakes about another one comes to rest there, with one shape; a pose that stays, stays."""
    body, times = bodies["neutral"], np.arange(40) / 50
    shaken = np.array([cv2.Rodrigues(np.array([0, 0, 0.1 * (-1) ** frame]))[0] for frame in range(40)])
    rotmat = np.tile(np.eye(3), (40, 24, 1, 1))
    rotmat[:, 16] = shaken
    betas = np.random.default_rng(0).normal(size=(40, 10))
    [rest] = body.from_rotmat(torch.eye(3).expand(1, 24, 3, 3), torch.tensor(betas).float().mean(0)[None]).joints
    joints = smooth_joints(rotmat, betas, times, body)
    np.testing.assert_allclose(joints[10:30], rest.expand(20, -1, -1), atol=1e-4)
