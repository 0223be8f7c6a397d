"""Left and right over time, and joints that jump: on people who move as the renderer's do, without any image."""

import functools
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from free import DEMO
from scipy.spatial.transform import Rotation
from torch import nn

from footage import left_right
from footage.left_right import GROUPS, SidesKept, straightened
from models.joint_branch import JointBranch
from synthetic import person as people
from synthetic.body import Body
from synthetic.motions import motion
from synthetic.person import Person, perform
from synthetic.street import walking_camera
from synthetic.wild import turning_camera
from utils.image import Crop
from utils.joints import BODY25, JOINTS49, flip_permutation, same_joint_rows
from utils.structures import Prediction, SmplParams

FRAMES = 90
RATE = 30.0
MIRRORED = np.array(flip_permutation(JOINTS49))
# what detectors have; the neck and the middle of the hips are theirs only
DETECTED = [name for name in BODY25 if name not in ("OP Neck", "OP MidHip")]
MOVES = ("walk", "run", "dance", "kick", "serve", "swing", "box", "side_step", "turn")


def members(*groups: str) -> np.ndarray:
    """Which of the 49 joints belong to the groups."""
    return np.array([any(part in name for group in groups for part in GROUPS[group]) for name in JOINTS49])


@functools.cache
def body() -> Body:
    return Body(DEMO, "neutral")


@functools.cache
def clip(kind: str, seed: int, turns: float = 0.0, frames: int = FRAMES, wild: bool = False) -> np.ndarray:
    """The joints (F,49,3) px of somebody who moves before a camera and turns about themself, `turns` a second."""
    rng = np.random.default_rng([seed, *kind.encode()])
    who = Person(body(), np.clip(rng.normal(0, 1, 10), -2, 2), np.zeros((len(body().template), 3)))

    def turning(kind: str, rng: np.random.Generator, frames: int) -> np.ndarray:
        poses = motion(kind, rng, frames)
        angles = 2 * np.pi * turns * np.arange(frames) / RATE
        poses[:, 0] = (
            Rotation.from_rotvec(np.outer(angles, [0, 1, 0])) * Rotation.from_rotvec(poses[:, 0])
        ).as_rotvec()
        return poses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people, "motion", turning)
        rotmats, places = perform(who, kind, rng, frames)
    cameras, _ = (turning_camera if wild else walking_camera)(rng, places)
    joints = np.zeros((frames, len(JOINTS49), 3))
    for frame, (rotmat, place, camera) in enumerate(zip(rotmats, places, cameras, strict=True)):
        points = camera.project(camera.to_camera(body().joints49(*body()(rotmat, who.shaped)) + place))
        for name in DETECTED:
            joints[frame, same_joint_rows(name)] = [*points[JOINTS49.index(name)], 0.9]
    return joints


def size_of(joints: np.ndarray) -> float:
    seen = joints[joints[..., 2] > 0]
    return float(np.ptp(seen[:, :2], axis=0).max())


def with_noise(joints: np.ndarray, seed: int, deviation: float = 0.008) -> np.ndarray:
    """What a detector adds: each place of the body is off, by what lasts and what does not, fractions of the size."""
    rng, noisy = np.random.default_rng(seed), joints.copy()
    for name in DETECTED:
        lasting, shift = rng.normal(0, deviation, 2), np.zeros((len(joints), 2))
        for frame in range(len(joints)):
            lasting = 0.9 * lasting + np.sqrt(1 - 0.81) * rng.normal(0, deviation, 2)
            shift[frame] = lasting + rng.normal(0, deviation / 3, 2)
        noisy[:, same_joint_rows(name), :2] += size_of(joints[:1]) * shift[:, None]
    return noisy


def exchange(joints: np.ndarray, frames: slice, *groups: str) -> np.ndarray:
    """Left and right exchanged in some of the frames, of some of the groups."""
    of_groups, result = members(*groups), joints.copy()
    result[frames, of_groups] = joints[frames][:, MIRRORED[of_groups]]
    return result


def keep(joints: np.ndarray, sides: SidesKept | None = None, misfit=None) -> tuple[np.ndarray, list, np.ndarray]:
    """All frames -> joints (F,49,3), exchanged groups of each, dropped (F,49)."""
    sides = sides or SidesKept(RATE)
    kept = [sides(person, misfit(frame) if misfit else None) for frame, person in enumerate(joints)]
    straight = np.stack([k.joints for k in kept])
    dropped = (joints[..., 2] > 0) & (joints[:, MIRRORED, 2] > 0) & (straight[..., 2] == 0)
    for k, mask in zip(kept, dropped, strict=True):
        assert k.dropped == mask[: len(BODY25)].sum()
    return straight, [k.exchanged for k in kept], dropped


@pytest.mark.parametrize("turns", [0.0, 0.5, 1.2])
@pytest.mark.parametrize("kind", MOVES)
def test_what_is_right_stays_as_it_is_however_fast_people_turn(kind, turns):
    """In a turn left and right really cross, twice a round."""
    for wild in (False, True):
        joints = clip(kind, 11, turns, wild=wild)
        kept, exchanged, dropped = keep(joints)
        assert not any(exchanged) and not dropped.any()
        np.testing.assert_array_equal(kept, joints)


@pytest.mark.parametrize("kind", MOVES)
def test_a_detectors_noise_exchanges_nothing(kind):
    _, exchanged, _ = keep(with_noise(clip(kind, 12, 0.5), seed=1))
    assert not any(exchanged)


@pytest.mark.parametrize("groups", [("legs",), ("arms",), ("legs", "arms"), ("legs", "arms", "face")])
@pytest.mark.parametrize("kind", ["dance", "kick", "serve", "box"])
def test_an_exchange_for_a_second_is_undone(kind, groups):
    """From the frame on in which left and right are farthest apart, so that there is no doubt."""
    joints = with_noise(clip(kind, 13), seed=2)
    apart = np.linalg.norm(joints[20:50, 2, :2] - joints[20:50, 5, :2], axis=1)
    start = 20 + int(apart.argmax())
    kept, exchanged, _ = keep(exchange(joints, slice(start, start + 30), *groups))
    visible = kept[..., 2] > 0
    wrong = np.linalg.norm(kept[..., :2] - joints[..., :2], axis=-1) > 1e-6
    wrong = (wrong & visible)[:, members("legs", "arms")].any(1)
    assert wrong.mean() < 0.03
    assert all(set(groups) >= set(names) for names in exchanged)
    assert sum(set(groups) - {"face"} <= set(names) for names in exchanged) >= 28


def test_both_halves_of_the_joints_stay_in_step():
    """What a detector gives is in OpenPose's rows and in SPIN's, and a loss may look at either."""
    joints = exchange(with_noise(clip("kick", 13), seed=3), slice(30, 60), "legs", "arms", "face")
    joints[70, same_joint_rows("OP LWrist"), :2] += 0.6 * size_of(joints[70:71])
    kept, exchanged, dropped = keep(joints)
    assert any(exchanged) and dropped.any()
    for name in DETECTED:
        for row in same_joint_rows(name):
            np.testing.assert_array_equal(kept[:, row], kept[:, JOINTS49.index(name)])
            np.testing.assert_array_equal(dropped[:, row], dropped[:, JOINTS49.index(name)])


@pytest.mark.parametrize("name", ["OP LWrist", "OP RAnkle", "OP RElbow", "OP LKnee", "OP RShoulder", "OP Nose"])
def test_a_joint_that_jumps_alone_is_dropped_and_expected_where_it_was(name):
    joints = with_noise(clip("talk", 14), seed=4, deviation=0.004)
    jumps = joints.copy()
    jumps[50, same_joint_rows(name), :2] += 0.35 * size_of(joints[50:51])
    kept, _, dropped = keep(jumps)
    assert np.flatnonzero(dropped.any(1)).tolist() == [50]
    assert np.flatnonzero(dropped[50]).tolist() == sorted(same_joint_rows(name))
    row = JOINTS49.index(name)
    assert kept[50, row, 2] == 0
    assert np.linalg.norm(kept[50, row, :2] - joints[50, row, :2]) < 0.05 * size_of(joints[50:51])


def test_a_joint_that_stays_elsewhere_is_there():
    joints = clip("stand", 14).copy()
    joints[40:, same_joint_rows("OP LWrist"), 1] -= 0.35 * size_of(joints[:1])
    kept, _, dropped = keep(joints)
    assert 1 <= dropped.any(1).sum() <= 0.1 * RATE
    np.testing.assert_array_equal(kept[50:], joints[50:])


def test_a_cut_and_a_moving_camera_drop_nothing():
    joints = clip("walk", 14).copy()
    joints[40:, :, :2] += np.where(joints[40:, :, 2:] > 0, 0.8 * size_of(joints[:1]), 0)
    _, exchanged, dropped = keep(joints)
    assert not any(exchanged) and not dropped.any()


def test_a_frame_between_two_minds_is_dropped_and_the_change_is_found():
    """Detectors put both sides of a limb in the middle while they cannot decide."""
    joints = clip("jumping_jack", 15)
    apart = int(np.linalg.norm(joints[20:60, 4, :2] - joints[20:60, 7, :2], axis=1).argmax()) + 20
    given = exchange(joints, slice(apart + 1, apart + 20), "legs", "arms", "face")
    limbs = members("arms")
    given[apart, limbs] = 0.45 * joints[apart, limbs] + 0.55 * joints[apart][MIRRORED][limbs]
    kept, exchanged, dropped = keep(given)
    assert dropped[apart, same_joint_rows("OP LWrist")].all() and dropped[apart, same_joint_rows("OP RWrist")].all()
    assert not dropped[apart + 2 :].any()
    wrists = [row for side in "LR" for row in same_joint_rows(f"OP {side}Wrist")]
    np.testing.assert_array_equal(kept[apart + 2 :, wrists], joints[apart + 2 :, wrists])
    assert all("arms" in names for names in exchanged[apart + 2 : apart + 20])


def judge(joints: np.ndarray):
    """A network that knows the person: how far candidates are from where they are."""

    def of_frame(frame: int):
        def misfit(candidates: np.ndarray) -> np.ndarray:
            distance = np.linalg.norm(candidates[..., :2] - joints[frame, :, :2], axis=-1)
            return distance[:, joints[frame, :, 2] > 0].mean(1) / (1.2 * size_of(joints[frame : frame + 1]))

        return misfit

    return of_frame


@pytest.mark.parametrize("kind", ["walk", "dance", "talk", "serve"])
def test_a_start_that_is_exchanged_is_put_straight_where_a_network_knows_better(kind):
    joints = with_noise(clip(kind, 16), seed=5)
    _, exchanged, _ = keep(exchange(joints, slice(None, 60), "arms"), misfit=judge(joints))
    assert exchanged[:60].count(("arms",)) > 25
    assert not any(exchanged[62:])


def test_whoever_looks_the_other_way_from_the_start_is_left_alone():
    """A body can explain that as well, so that hardly anything is believed of it."""
    joints = with_noise(clip("walk", 16), seed=5)
    assert not any(keep(exchange(joints, slice(None), *GROUPS))[1])


@pytest.mark.parametrize("group", ["legs", "arms"])
def test_a_start_with_one_group_exchanged_is_put_straight_by_where_the_others_look(group):
    joints = clip("stand", 17)
    assert abs(np.subtract(*joints[0, [2, 5], 0])) > 0.1 * size_of(joints[:1])  # not in profile
    _, exchanged, _ = keep(exchange(joints, slice(None), group))
    assert exchanged[-1] == (group,)
    assert exchanged.count((group,)) > 0.6 * FRAMES


def test_the_network_decides_after_a_gap():
    joints = with_noise(clip("dance", 18), seed=6)
    given = exchange(joints, slice(60, None), "arms")
    given[25:60, :, 2] = 0
    kept, exchanged, _ = keep(given, misfit=judge(joints))
    np.testing.assert_array_equal(kept[25:60], given[25:60])
    assert not any(exchanged[:60])
    assert exchanged[60:].count(("arms",)) > 24


def test_a_change_for_the_better_is_not_undone_where_a_network_knows():
    """Whoever only goes by motion would carry the detector's error on for ever, once it is over."""
    joints = with_noise(clip("talk", 19), seed=7)
    given = exchange(joints, slice(None, 30), "legs", "arms", "face")
    _, exchanged, _ = keep(given, misfit=judge(joints))
    assert not any(exchanged[32:])


def test_nothing_depends_on_what_comes_later():
    joints = exchange(with_noise(clip("kick", 20), seed=8), slice(30, 50), "legs", "arms")
    whole, exchanged, _ = keep(joints)
    part, exchanged_of_part, _ = keep(joints[:45])
    np.testing.assert_array_equal(whole[:45], part)
    assert exchanged[:45] == exchanged_of_part


def test_place_and_size_in_the_image_do_not_matter():
    joints = exchange(with_noise(clip("kick", 20), seed=8), slice(30, 50), "legs", "arms")
    moved = joints.copy()
    moved[..., :2] = 4 * moved[..., :2] + [700, -300]
    assert keep(joints)[1] == keep(moved)[1]


def test_after_a_reset_another_person_is_not_compared_with_the_first():
    sides = SidesKept(RATE)
    keep(clip("stand", 21), sides)
    other = exchange(clip("stand", 21), slice(None), "legs", "arms", "face")
    sides.reset()
    assert not any(keep(other, sides)[1])


def test_people_who_are_cut_off_or_hidden_are_no_reason_to_stumble():
    joints = clip("walk", 22).copy()
    joints[20:40][:, members("legs")] = 0
    joints[50, :, 2] = 0.2
    joints[60:70, [row for name in DETECTED[1:] for row in same_joint_rows(name)]] = 0
    kept, exchanged, _ = keep(joints)
    assert np.isfinite(kept).all() and not any(exchanged)


def test_memory_does_not_grow_with_the_frames():
    joints, sides = clip("walk", 23), SidesKept(RATE)
    keep(joints, sides)
    tracemalloc.start()
    for person in joints:
        sides(person)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(5):
        for person in joints:
            sides(person)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000


def test_input_is_left_as_it_is():
    joints = exchange(clip("kick", 20), slice(30, 50), "legs")
    before = joints.copy()
    keep(joints)
    np.testing.assert_array_equal(joints, before)


def test_recorded_sequences_are_put_straight_one_by_one():
    first, second = clip("stand", 21)[:30], exchange(clip("stand", 21)[:30], slice(None), "legs", "arms", "face")
    both, sequences = np.concatenate([first, second]), [("one", 0)] * 30 + [("other", 0)] * 30
    assert not any(kept.exchanged for kept in straightened(both, sequences, RATE, None))
    assert any(kept.exchanged for kept in straightened(both, [("one", 0)] * 60, RATE, None))


class Knowing(JointBranch):
    """Answers as if the person were always where they are; any other candidate does not fit."""

    def __init__(self, joints: np.ndarray) -> None:
        nn.Module.__init__(self)
        self.joints, self.shown = iter(joints), []

    def forward(self, keypoints_2d: torch.Tensor) -> SmplParams:
        self.shown.append(len(keypoints_2d))
        return next(self.joints)


def test_a_network_is_shown_every_state_of_a_frame_and_the_best_explained_is_taken(monkeypatch):
    joints = clip("talk", 16)
    network = Knowing(joints)

    def predicted(branch: Knowing, body: object, frame: dict) -> Prediction:
        truth = branch(frame["keypoints_2d"])
        low, high = (edge(given[0][given[0][:, 2] > 0, :2], axis=0) for edge in (np.min, np.max))
        crop = Crop((low + high) / 2, 1.2 * (high - low).max() / 200)
        place = torch.as_tensor(crop.exact_points(truth))[None, :, :2].expand(len(frame["keypoints_2d"]), -1, -1)
        return Prediction(*[torch.zeros(1)] * 5, place)

    monkeypatch.setattr(left_right, "predict", predicted)
    misfit, marks, sides = left_right.sight_of(network, SimpleNamespace(v_template=torch.zeros(1))), [], SidesKept(RATE)
    for person in exchange(joints, slice(None), "arms"):
        given = [person]
        marks.append(sides(person, misfit).exchanged)
    assert set(network.shown) == {2 ** len(GROUPS)}
    assert marks.count(("arms",)) > 0.5 * FRAMES


def test_a_network_of_images_is_not_asked():
    assert left_right.sight_of(nn.Linear(1, 1), None) is None
