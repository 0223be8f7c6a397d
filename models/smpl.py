"""The SMPL body (Loper et al., SIGGRAPH Asia 2015) with the 49 joints of SPIN, on top of smplx."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import scipy.sparse
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

Array = np.ndarray | scipy.sparse.spmatrix  # the regressor of released files is sparse

GENDERS = ("neutral", "male", "female")
NUM_BETAS = 10
_ARRAYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_REMEDY = (
    "run `python process_data.py --dataset smpl` (README, Benchmarks); "
    "without any download, `python boa.py --name demo --dataset_name synthetic` runs now"
)


class Tree(list[int]):
    """The parent of each joint, -1 of the root, as smplx reads them: one by one on the host, from the second on there.

    From a GPU each single one would be waited for, and so would the copy of all of them to it.
    """

    def __init__(self, parents: list[int], there: Tensor) -> None:
        super().__init__(parents)
        self.there, self.shape = there, there.shape

    def __getitem__(self, which: int | slice) -> int | Tensor:
        return self.there[which] if isinstance(which, slice) else super().__getitem__(which)


class SMPL(smplx.SMPL):
    """smplx's SMPL with SPIN's 49 joints: 25 of OpenPose, then 24 of SPIN (Kolotouros et al., ICCV 2019).

    Args:
        model: the arrays of an SMPL file, for any number of vertices V; `vertex_ids` (21,), where present, are the
            vertices of nose, eyes, ears, feet and finger tips in smplx's order, else those of SMPL's own mesh are used
        extra_regressor: (9,V), SPIN's J_regressor_extra.npy
    """

    # smplx loads up to 300 directions where a file has them, and warns on the screen where it has only the usual 10
    SHAPE_SPACE_DIM = NUM_BETAS

    def __init__(self, model: Mapping[str, Array], extra_regressor: np.ndarray) -> None:
        ids = model.get("vertex_ids")
        super().__init__(
            model_path="",
            data_struct=Struct(**model),
            vertex_ids=SMPLX_VERTEX_IDS["smplh"] if ids is None else dict(zip(VERTEX21, ids, strict=True)),
            **{f"create_{part}": False for part in ("betas", "global_orient", "body_pose", "transl")},
        )
        parents = self._buffers.pop("parents")
        self._parents = parents.tolist()
        self.register_buffer("_parents_there", parents, persistent=False)
        self.register_buffer("extra_regressor", torch.as_tensor(extra_regressor, dtype=torch.float32))
        picks = rows([*BODY25.values(), *SPIN24.values()], BODY54)
        self.register_buffer("picks", torch.tensor(picks), persistent=False)

    @property
    def parents(self) -> Tree:
        """The parent of each of the 24 joints."""
        return Tree(self._parents, self._parents_there)

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
            "kintree_table": self._parents_there[None],
            "f": torch.zeros(0, 3),
            "vertex_ids": torch.searchsorted(keep, vertex_joints),
        }
        arrays = {name: array.cpu().numpy() for name, array in arrays.items()}
        return SMPL(arrays, self.extra_regressor[:, keep].cpu().numpy()).to(self.v_template)


def read_model(path: Path) -> dict[str, Array]:
    """Read the arrays of an SMPL file, .pkl (as released, with or without chumpy) or .npz.

    Raises UserError when the file is missing, damaged, unsafe or not an SMPL model.
    """
    if path.suffix == ".npz":
        content = load_npz(path, _ARRAYS, _REMEDY, optional=("vertex_ids",))
    else:
        content = load_pickle(path, _ARRAYS, _REMEDY)
    model = {name: content[name] for name in (*_ARRAYS, "vertex_ids") if name in content}
    for problem in _problems(model):
        raise UserError(f"{path} is no SMPL model: {problem}; {_REMEDY}")
    return model


def _problems(model: Mapping[str, Array]) -> Iterator[str]:
    """What is wrong with the arrays of a model; what comes first is what the rest depends on."""
    for name, array in model.items():
        is_array = isinstance(array, Array if name == "J_regressor" else np.ndarray)
        if not is_array or array.dtype.kind not in "fiu" or array.ndim == 0:
            yield f"{name} is no array of numbers"
        numbers = array.data if scipy.sparse.issparse(array) else array
        if not np.isfinite(numbers).all():
            yield f"{name} is not finite"
    count = len(model["v_template"])
    shapes = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, NUM_BETAS),
        "posedirs": (count, 3, 207),
        "J_regressor": (24, count),
        "weights": (count, 24),
        "kintree_table": (2, 24),
        "f": (len(model["f"]), 3),
        "vertex_ids": (len(VERTEX21),),
    }
    for name, shape in shapes.items():
        found = model[name].shape if name in model else shape
        # files exist with more than the ten directions of shape that the regressor predicts
        is_larger = name == "shapedirs" and len(found) == 3 and found[:2] == shape[:2] and found[2] > NUM_BETAS
        if found != shape and not is_larger:
            yield f"{name} has shape {found} where {shape} is needed"
    parents = model["kintree_table"][0, 1:]
    if (parents < 0).any() or (parents >= np.arange(1, 24)).any():
        yield "kintree_table is no tree"
    for name in ("f", "vertex_ids"):
        if name in model and (model[name].dtype.kind == "f" or ((model[name] < 0) | (model[name] >= count)).any()):
            yield f"{name} holds what is no vertex"


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
