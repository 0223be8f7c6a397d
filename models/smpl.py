"""The SMPL body (Loper et al., SIGGRAPH Asia 2015) with the 49 joints of SPIN, on top of smplx."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import smplx
import torch
from smplx.utils import Struct
from smplx.vertex_ids import vertex_ids as SMPLX_VERTEX_IDS
from torch import Tensor

from utils.errors import UserError
from utils.files import load_npy, load_npz
from utils.joints import BODY25, BODY54, EXTRA9, SPIN24, VERTEX21, rows
from utils.restricted_pickle import load_pickle
from utils.structures import BodyOutput

GENDERS = ("neutral", "male", "female")
NUM_BETAS = 10
_ARRAYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_REMEDY = (
    "run `python process_data.py --dataset smpl` (README, Benchmarks); "
    "without any download, `python boa.py --name demo --dataset_name synthetic` runs now"
)


class SMPL(smplx.SMPL):
    """smplx's SMPL with SPIN's 49 joints: 25 of OpenPose, then 24 of SPIN (Kolotouros et al., ICCV 2019).

    Args:
        model: the arrays of an SMPL file, for any number of vertices V; `vertex_ids` (21,), where present, are the
            vertices of nose, eyes, ears, feet and finger tips in smplx's order, else those of SMPL's own mesh are used
        extra_regressor: (9,V), SPIN's J_regressor_extra.npy
    """

    # smplx loads up to 300 directions where a file has them, and warns on the screen where it has only the usual 10
    SHAPE_SPACE_DIM = NUM_BETAS

    def __init__(self, model: Mapping[str, Any], extra_regressor: np.ndarray) -> None:
        ids = model.get("vertex_ids")
        super().__init__(
            model_path="",
            data_struct=Struct(**model),
            vertex_ids=SMPLX_VERTEX_IDS["smplh"] if ids is None else dict(zip(VERTEX21, ids, strict=True)),
            **{f"create_{part}": False for part in ("betas", "global_orient", "body_pose", "transl")},
        )
        # smplx reads the tree joint by joint; from a GPU each of these reads would wait, so that it stays on the host
        self.parents = self._buffers.pop("parents")
        self.register_buffer("extra_regressor", torch.as_tensor(extra_regressor, dtype=torch.float32))
        picks = rows([*BODY25.values(), *SPIN24.values()], BODY54)
        self.register_buffer("picks", torch.tensor(picks), persistent=False)

    def forward(self, betas: Tensor, global_orient: Tensor, body_pose: Tensor, pose2rot: bool = True) -> BodyOutput:
        """Pose the body.

        Args:
            betas: (B,10) shape in standard deviations
            global_orient: (B,3) axis-angle, or (B,1,3,3) rotation matrices if not pose2rot
            body_pose: (B,69) axis-angle, or (B,23,3,3) rotation matrices if not pose2rot
        """
        output = super().forward(betas, body_pose, global_orient, pose2rot=pose2rot)
        regressed = self.extra_regressor @ output.vertices
        return BodyOutput(torch.cat([output.joints, regressed], dim=1)[:, self.picks], output.vertices)

    def from_axis_angle(self, pose: Tensor, betas: Tensor) -> BodyOutput:
        """Pose the body by pose (B,72), axis-angle, and betas (B,10)."""
        return self(betas, pose[:, :3], pose[:, 3:])

    def from_rotmat(self, rotmat: Tensor, betas: Tensor) -> BodyOutput:
        """Pose the body by rotation matrices (B,24,3,3) and betas (B,10)."""
        return self(betas, rotmat[:, :1], rotmat[:, 1:], pose2rot=False)

    def unposed(self, betas: Tensor) -> Tensor:
        """Vertices (B,V,3) of the body in the zero pose."""
        return self.v_template + torch.einsum("bl,vcl->bvc", betas, self.shapedirs)

    def joints_only(self) -> "SMPL":
        """The same body with only those vertices that its joints are made of: the same 49 joints, 8 times faster."""
        vertex_joints = self.vertex_joint_selector.extra_joints_idxs
        touched = (self.J_regressor != 0).any(0) | (self.extra_regressor != 0).any(0)
        touched[vertex_joints] = True
        keep = touched.nonzero()[:, 0]
        basis = self.posedirs.unflatten(1, (-1, 3))[:, keep]
        arrays = {
            "v_template": self.v_template[keep],
            "shapedirs": self.shapedirs[keep],
            "posedirs": basis.permute(1, 2, 0),
            "J_regressor": self.J_regressor[:, keep],
            "weights": self.lbs_weights[keep],
            "kintree_table": self.parents[None],
            "f": torch.zeros(0, 3),
            "vertex_ids": torch.searchsorted(keep, vertex_joints),
        }
        arrays = {name: array.cpu().numpy() for name, array in arrays.items()}
        return SMPL(arrays, self.extra_regressor[:, keep].cpu().numpy()).to(self.v_template)


def read_model(path: Path) -> dict[str, Any]:
    """Read the arrays of an SMPL file, .pkl (as released, with or without chumpy) or .npz.

    Raises UserError when the file is missing, damaged, unsafe or not an SMPL model.
    """
    if path.suffix == ".npz":
        model = load_npz(path, _ARRAYS, _REMEDY, optional=("vertex_ids",))
    else:
        model = load_pickle(path, _ARRAYS, _REMEDY)
    count = len(model["v_template"])
    shapes = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, NUM_BETAS),
        "posedirs": (count, 3, 207),
        "J_regressor": (24, count),
        "weights": (count, 24),
        "kintree_table": (2, 24),
    }
    for name, shape in shapes.items():
        found = model[name].shape
        # files exist with more than the ten directions of shape that the regressor predicts
        if found != shape and not (name == "shapedirs" and found[:2] == shape[:2] and found[2] > NUM_BETAS):
            raise UserError(f"{path} is no SMPL model: {name} has shape {found} where {shape} is needed; {_REMEDY}")
    return model


def load_bodies(model_dir: Path, extra_regressor_file: Path, genders: Iterable[str] = GENDERS) -> dict[str, SMPL]:
    """Load SMPL_{NEUTRAL,MALE,FEMALE}.pkl, or .npz, of a folder.

    Raises UserError when a file is missing or damaged or the regressor belongs to another mesh.
    """
    bodies = {}
    for gender in genders:
        path = Path(model_dir) / f"SMPL_{gender.upper()}.npz"
        model = read_model(path if path.exists() else path.with_suffix(".pkl"))
        shape = (len(EXTRA9), len(model["v_template"]))
        regressor = load_npy(extra_regressor_file, shape, "get it with SPIN's data (data/README.md)")
        bodies[gender] = SMPL(model, regressor)
    return bodies
