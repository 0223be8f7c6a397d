"""The one table of joint names; every list of joint indices in the program is derived from it.

The names of the 24 SPIN joints are SPIN's (Kolotouros et al., ICCV 2019). Other skeletons list, in the order of their
rows, the SPIN joint that a row stands for, so that a selection between two skeletons is a matter of names.
"""

from collections.abc import Iterable

SIDES = ("left", "right")
SMPL24 = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hand right_hand"
).split()
# vertices that smplx appends as joints
VERTEX21 = (
    "nose reye leye rear lear LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel "
    "lthumb lindex lmiddle lring lpinky rthumb rindex rmiddle rring rpinky"
).split()
# rows of J_regressor_extra.npy
EXTRA9 = "rhip_lsp lhip_lsp neck_lsp head_top_lsp pelvis_mpii thorax_mpii spine_h36m jaw_h36m head_h36m".split()
BODY54 = SMPL24 + VERTEX21 + EXTRA9

# OpenPose BODY_25 and SPIN's joints: name -> where the body model has it
BODY25 = {
    "OP Nose": "nose",
    "OP Neck": "neck",
    "OP RShoulder": "right_shoulder",
    "OP RElbow": "right_elbow",
    "OP RWrist": "right_wrist",
    "OP LShoulder": "left_shoulder",
    "OP LElbow": "left_elbow",
    "OP LWrist": "left_wrist",
    "OP MidHip": "pelvis",
    "OP RHip": "right_hip",
    "OP RKnee": "right_knee",
    "OP RAnkle": "right_ankle",
    "OP LHip": "left_hip",
    "OP LKnee": "left_knee",
    "OP LAnkle": "left_ankle",
    "OP REye": "reye",
    "OP LEye": "leye",
    "OP REar": "rear",
    "OP LEar": "lear",
    "OP LBigToe": "LBigToe",
    "OP LSmallToe": "LSmallToe",
    "OP LHeel": "LHeel",
    "OP RBigToe": "RBigToe",
    "OP RSmallToe": "RSmallToe",
    "OP RHeel": "RHeel",
}
SPIN24 = {
    "Right Ankle": "right_ankle",
    "Right Knee": "right_knee",
    "Right Hip": "rhip_lsp",
    "Left Hip": "lhip_lsp",
    "Left Knee": "left_knee",
    "Left Ankle": "left_ankle",
    "Right Wrist": "right_wrist",
    "Right Elbow": "right_elbow",
    "Right Shoulder": "right_shoulder",
    "Left Shoulder": "left_shoulder",
    "Left Elbow": "left_elbow",
    "Left Wrist": "left_wrist",
    "Neck (LSP)": "neck_lsp",
    "Top of Head (LSP)": "head_top_lsp",
    "Pelvis (MPII)": "pelvis_mpii",
    "Thorax (MPII)": "thorax_mpii",
    "Spine (H36M)": "spine_h36m",
    "Jaw (H36M)": "jaw_h36m",
    "Head (H36M)": "head_h36m",
    "Nose": "nose",
    "Left Eye": "leye",
    "Right Eye": "reye",
    "Left Ear": "lear",
    "Right Ear": "rear",
}
JOINTS49 = [*BODY25, *SPIN24]

# rows of SPIN's J_regressor_h36m.npy: left leg first, unlike Human3.6M's own skeleton
H36M17 = [
    "Pelvis (MPII)",
    *("Left Hip", "Left Knee", "Left Ankle"),
    *("Right Hip", "Right Knee", "Right Ankle"),
    *("Spine (H36M)", "Neck (LSP)", "Jaw (H36M)", "Head (H36M)"),
    *("Left Shoulder", "Left Elbow", "Left Wrist"),
    *("Right Shoulder", "Right Elbow", "Right Wrist"),
]
# the order in which scores are taken: all 17 for MPI-INF-3DHP, the first 14 for 3DPW
COMMON17 = [*list(SPIN24)[:13], "Head (H36M)", "Pelvis (MPII)", "Spine (H36M)", "Jaw (H36M)"]
LSP14 = COMMON17[:14]

# the twelve joints of the limbs: SPIN's name -> OpenPose's, which is the joint of the skeleton itself
LIMBS = {name: f"OP {name[0]}{name.split()[1]}" for name in list(SPIN24)[:12]}

# raw skeletons of the data sets, "" where a row has no counterpart among the 17
H36M32 = [
    "",
    *("Right Hip", "Right Knee", "Right Ankle", "", ""),
    *("Left Hip", "Left Knee", "Left Ankle", "", ""),
    *("Pelvis (MPII)", "Spine (H36M)", "", "Jaw (H36M)", "Head (H36M)", ""),
    *("Left Shoulder", "Left Elbow", "Left Wrist", "", "", "", ""),
    *("Neck (LSP)", "Right Shoulder", "Right Elbow", "Right Wrist", "", "", "", ""),
]
HP3D17 = [
    *("Head (H36M)", "Neck (LSP)"),
    *("Right Shoulder", "Right Elbow", "Right Wrist"),
    *("Left Shoulder", "Left Elbow", "Left Wrist"),
    *("Right Hip", "Right Knee", "Right Ankle"),
    *("Left Hip", "Left Knee", "Left Ankle"),
    *("Pelvis (MPII)", "Spine (H36M)", "Jaw (H36M)"),
]
HP3D28 = [
    *("", "", "", "Spine (H36M)", "Pelvis (MPII)", "Neck (LSP)", "Jaw (H36M)", "Head (H36M)"),
    *("", "Left Shoulder", "Left Elbow", "Left Wrist", ""),
    *("", "Right Shoulder", "Right Elbow", "Right Wrist", ""),
    *("Left Hip", "Left Knee", "Left Ankle", "", ""),
    *("Right Hip", "Right Knee", "Right Ankle", "", ""),
]
COCO18 = [
    *("Nose", "Neck (LSP)"),
    *("Right Shoulder", "Right Elbow", "Right Wrist"),
    *("Left Shoulder", "Left Elbow", "Left Wrist"),
    *("Right Hip", "Right Knee", "Right Ankle"),
    *("Left Hip", "Left Knee", "Left Ankle"),
    *("Right Eye", "Left Eye", "Right Ear", "Left Ear"),
]

# skeletons of 2D detectors, by the name among the 49, "" where a row has no counterpart
COCO17 = [
    *("OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar", "OP LShoulder", "OP RShoulder", "OP LElbow", "OP RElbow"),
    *("OP LWrist", "OP RWrist", "OP LHip", "OP RHip", "OP LKnee", "OP RKnee", "OP LAnkle", "OP RAnkle"),
]
# a detector's neck and mid-hip are the middles of shoulders and hips, in OpenPose's own files to the pixel; those of
# the body are 7 cm and 9 cm higher, so that they would pull shoulders and hips away from where they were seen
_MIDDLES = ("OP Neck", "OP MidHip")
HALPE26 = [
    *COCO17,
    *("Top of Head (LSP)", "", ""),
    *("OP LBigToe", "OP RBigToe", "OP LSmallToe", "OP RSmallToe", "OP LHeel", "OP RHeel"),
]
OPENPOSE25 = ["" if name in _MIDDLES else name for name in BODY25]
# OpenPose's COCO is BODY_25 without the mid-hip and the feet, and was what it had before
OPENPOSE18 = [*OPENPOSE25[:8], *OPENPOSE25[9:19]]
OPENPOSE25B = [
    *COCO17,
    *("", "Top of Head (LSP)"),
    *("OP LBigToe", "OP LSmallToe", "OP LHeel", "OP RBigToe", "OP RSmallToe", "OP RHeel"),
]
OPENPOSE15 = ["Top of Head (LSP)", *OPENPOSE18[1:14], ""]  # its MPI, which ends with the chest
MEDIAPIPE33 = [
    *("OP Nose", "", "OP LEye", "", "", "OP REye", "", "OP LEar", "OP REar", "", ""),
    *("OP LShoulder", "OP RShoulder", "OP LElbow", "OP RElbow", "OP LWrist", "OP RWrist", "", "", "", "", "", ""),
    *("OP LHip", "OP RHip", "OP LKnee", "OP RKnee", "OP LAnkle", "OP RAnkle", "OP LHeel", "OP RHeel"),
    *("OP LBigToe", "OP RBigToe"),  # "foot index", the tip of the foot
]
CONFIDENT = 0.3  # confidence from which a detected joint counts as seen


def rows(names: Iterable[str], table: Iterable[str]) -> list[int]:
    """Row of each name in a skeleton's table; KeyError for a name that the table lacks."""
    where = {name: row for row, name in enumerate(table)}
    return [where[name] for name in names]


def mirror(name: str) -> str:
    """Name of the joint on the other side of the body, in any of the tables; the name itself on the middle line."""
    swaps = [("Right ", "Left "), ("OP R", "OP L"), ("right_", "left_")]
    for right, left in swaps:
        if name.startswith(right):
            return name.replace(right, left, 1)
        if name.startswith(left):
            return name.replace(left, right, 1)
    return name


def flip_permutation(table: Iterable[str]) -> list[int]:
    """Order that exchanges left and right when an image is mirrored."""
    table = list(table)
    return rows([mirror(name) for name in table], table)


def same_joint_rows(name: str) -> list[int]:
    """Rows among the 49 that are the same place on the body as the named one: a nose is `OP Nose` and `Nose`."""
    places = [*BODY25.values(), *SPIN24.values()]
    place = places[JOINTS49.index(name)]
    return [row for row, other in enumerate(places) if other == place]


def joint_names(confidence: Iterable[float]) -> str:
    """Those of the 49 joints that have any confidence (49,), each place of the body once."""
    seen = [name for name, value in zip(JOINTS49, confidence, strict=True) if value > 0]
    names = {tuple(same_joint_rows(name)): name.removeprefix("OP ") for name in reversed(seen)}
    return ", ".join(reversed(names.values())) or "none"


# what detectors find: OpenPose's joints without those that it computes from others
DETECTED23 = [name for name in OPENPOSE25 if name]
FACE5 = [name for name in DETECTED23 if name.endswith(("Nose", "Eye", "Ear"))]


def _spin_twin(name: str) -> str:
    """SPIN's joint of the same name, `Right Hip` for `OP RHip`; the name itself where there is none."""
    side = {"R": "Right ", "L": "Left "}.get(name[3], "")
    twin = side + name[3 + bool(side) :]
    return twin if twin in SPIN24 else name


SPIN_TWINS = rows(map(_spin_twin, DETECTED23), JOINTS49)  # for data that have only SPIN's rows

# where things stand among the 49 and the 24
SPIN = slice(len(BODY25), len(JOINTS49))
HIPS = slice(list(SPIN24).index("Right Hip"), list(SPIN24).index("Left Hip") + 1)  # neighbours among the 24
PELVIS = H36M17.index("Pelvis (MPII)")
