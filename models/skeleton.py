"""The 49 joints of a body without its vertices: exactly those of models.smpl, fast enough to train on."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.smpl import SMPL
from utils.joints import BODY25, BODY54, SMPL24, SPIN24, rows


class Skeleton(nn.Module):
    """Skinning, summed up once over the vertices that a joint is made of.

    With X the weights of a joint over the vertices, w those of the skin, and R, t, J rotation, place and rest place of
    the bones, a joint is sum_v X_v sum_j w_vj (R_j (v - J_j) + t_j) = sum_j (R_j m_j + c_j t_j), where the moments
    m_j = sum_v X_v w_vj (v - J_j) are linear in shape and pose corrections, and c_j = sum_v X_v w_vj.

    Args:
        body: whose joints are wanted
    """

    def __init__(self, body: SMPL) -> None:
        super().__init__()
        count = len(body.v_template)
        picked = nn.functional.one_hot(body.vertex_joint_selector.extra_joints_idxs, count).to(body.v_template)
        made_of = torch.cat([picked, body.extra_regressor])  # (K,V)
        shares = torch.einsum("kv,vj->kjv", made_of, body.lbs_weights)
        regressor = body.J_regressor
        towards = shares - shares.sum(-1, keepdim=True) * regressor  # (K,24,V), v - J_j
        self.register_buffer("shares", shares.sum(-1))
        self.register_buffer("moments", towards @ body.v_template)
        self.register_buffer("moment_directions", torch.einsum("kjv,vxb->bkjx", towards, body.shapedirs))
        corrections = body.posedirs.unflatten(1, (-1, 3))
        # the bones' places follow the shape alone, so that the corrections move only what is around them
        corrected = torch.einsum("kjv,pvx->pkjx", shares, corrections) if corrections.any() else None
        self.register_buffer("moment_corrections", corrected)
        self.register_buffer("rest", regressor @ body.v_template)
        self.register_buffer("rest_directions", torch.einsum("jv,vxb->bjx", regressor, body.shapedirs))
        self.register_buffer("picks", torch.tensor(rows([*BODY25.values(), *SPIN24.values()], BODY54)))
        self.levels, self.order = _levels(body.parents)
        self.parents = [max(parent, 0) for parent in body.parents]

    def forward(self, rotmat: Tensor, betas: Tensor, stretch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Joints (B,49,3) m of a body of shape betas (B,10) posed by rotations (B,24,3,3); bones (B,24,3,3).

        Args:
            stretch: (B,24), by which the way from its parent to each joint is made longer; None: 1

        Returns:
            the joints, and the rotation of each bone in the body's axes
        """
        rest = self.rest + torch.einsum("nb,bjx->njx", betas, self.rest_directions)
        offsets = rest - rest[:, self.parents]
        offsets = torch.cat([rest[:, :1], offsets[:, 1:]], dim=1)
        if stretch is not None:
            offsets = offsets * stretch[..., None]
        turns, places = self._chain(rotmat, offsets)
        moments = self.moments + torch.einsum("nb,bkjx->nkjx", betas, self.moment_directions)
        if self.moment_corrections is not None:
            bent = (rotmat[:, 1:] - torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)).flatten(1)
            moments = moments + torch.einsum("np,pkjx->nkjx", bent, self.moment_corrections)
        others = torch.einsum("njxy,nkjy->nkx", turns, moments) + self.shares @ places
        return torch.cat([places, others], dim=1)[:, self.picks], turns

    def _chain(self, rotmat: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (B,24,3,3) and places (B,24,3) of all bones in the body's axes, a generation at a time."""
        turns, places = [rotmat[:, :1]], [offsets[:, :1]]
        for joints, parents in self.levels:
            above = turns[-1][:, parents]
            places.append(places[-1][:, parents] + (above @ offsets[:, joints, :, None])[..., 0])
            turns.append(above @ rotmat[:, joints])
        return torch.cat(turns, dim=1)[:, self.order], torch.cat(places, dim=1)[:, self.order]


def _levels(parents: list[int]) -> tuple[list[tuple[list[int], list[int]]], list[int]]:
    """Joints by generation, each with the rows of their parents in the one before; and how to put them in order."""
    generations = [[0]]
    while sum(map(len, generations)) < len(SMPL24):
        generations.append([joint for joint, parent in enumerate(parents) if joint and parent in generations[-1]])
    levels = [(joints, [before.index(parents[joint]) for joint in joints]) for before, joints in pairwise(generations)]
    where = [joint for joints in generations for joint in joints]
    return levels, [where.index(joint) for joint in range(len(SMPL24))]
