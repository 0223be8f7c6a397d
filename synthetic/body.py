"""Linear blend skinning in numpy: one free body in about a millisecond, for rendering data without torch.

Loper et al., SMPL: A Skinned Multi-Person Linear Model, SIGGRAPH Asia 2015, without pose blend shapes (those of the
free body are zero).
"""

from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import sparse

from utils import renderer
from utils.files import existing, load_npy, load_npz
from utils.joints import BODY25, BODY54, SMPL24, SPIN24, rows
from utils.kinematics import forward_kinematics

REMEDY = "run process_data.py --dataset body, or restore data/demo from the repository"
KEYS = ("v_template", "shapedirs", "weights", "J_regressor", "kintree_table", "f", "vertex_ids")
GENDERS = ("neutral", "male", "female")
JOINT_ROWS = rows([*BODY25.values(), *SPIN24.values()], BODY54)


def body_files(body_dir: Path) -> list[Path]:
    """The files that bodies are read from; UserError when one of them is missing."""
    names = [*(f"smpl/SMPL_{gender.upper()}.npz" for gender in GENDERS), "spin_data/J_regressor_extra.npy"]
    return [existing(Path(body_dir) / name, REMEDY) for name in names]


class Body:
    """A body of the free model.

    faces (F,3); template (V,3) m; weights (V,24); vertex_ids (21,) of the joints VERTEX21.
    """

    def __init__(self, body_dir: Path, gender: str):
        """Read `smpl/SMPL_<GENDER>.npz` and `spin_data/J_regressor_extra.npy` in body_dir; UserError if missing."""
        model = load_npz(Path(body_dir) / f"smpl/SMPL_{gender.upper()}.npz", KEYS, REMEDY)
        self.template = model["v_template"]
        self.faces = model["f"].astype(np.int64)
        self.weights = model["weights"]
        self._directions = model["shapedirs"].reshape(-1, model["shapedirs"].shape[-1])
        self._regressor = model["J_regressor"]
        self._parents = [-1, *model["kintree_table"][0, 1:].astype(int)]
        self.vertex_ids = model["vertex_ids"]
        regressor_file = Path(body_dir) / "spin_data/J_regressor_extra.npy"
        self._extra_regressor = load_npy(regressor_file, (9, len(self.template)), REMEDY)

    @cached_property
    def incidence(self) -> sparse.csr_matrix:
        """As from renderer.face_incidence."""
        return renderer.face_incidence(self.faces, len(self.template))

    def shaped(self, betas: np.ndarray) -> np.ndarray:
        """Vertices (V,3) m in the zero pose for betas (10,)."""
        return self.template + (self._directions @ betas.astype(np.float32)).reshape(-1, 3)

    def __call__(self, rotmat: np.ndarray, shaped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pose `shaped` (V,3) by rotmat (24,3,3) -> vertices (V,3), SMPL joints (24,3), metres, float32."""
        rest = self._regressor @ shaped
        turns, joints = forward_kinematics(rotmat, rest, self._parents)
        shifts = joints - np.einsum("jab,jb->ja", turns, rest)
        blended = (self.weights @ turns.reshape(len(SMPL24), 9)).reshape(-1, 3, 3)
        vertices = np.einsum("vab,vb->va", blended, shaped) + self.weights @ shifts
        return vertices, joints

    def joints49(self, vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """The 49 joints (49,3) of a posed body."""
        everything = np.concatenate([joints, vertices[self.vertex_ids], self._extra_regressor @ vertices])
        return everything[JOINT_ROWS]
