"""What MediaPipe does wrong on rendered people, joint by joint: the numbers of synthetic.detections.PARTS.

Clips of every kind of motion are rendered, with seeds that nothing is validated or reported on. For each joint: where
it is seen, cm from the body's joint in the axes of its bone (left; right ones are mirrored); the noise about that,
mm; and how often it is not found. It takes some minutes.

    python benchmarks/detector.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

import config  # noqa: E402
from footage.detections import detect  # noqa: E402
from models.skeleton import Skeleton  # noqa: E402
from models.smpl import load_bodies  # noqa: E402
from synthetic import stream  # noqa: E402
from synthetic.detections import PARTS, SEEN_ROWS, Detector, hidden_joints  # noqa: E402
from synthetic.motions import KINDS  # noqa: E402
from utils.geometry import axis_angle_to_rotmat  # noqa: E402
from utils.joints import CONFIDENT, DETECTED23, JOINTS49, rows  # noqa: E402

_FIRST_SEED = 301
_FRAMES = 25  # of each clip
_DISTANCE = 5.0  # m, that people are taken to be away to see what is hidden
_OUTLIER = 0.04  # m, from which an error counts less and less
_GENDERS = {"m": "male", "f": "female"}


def render(folder: Path) -> list[Path]:
    """Streams of all kinds of motion, six a stream, and what MediaPipe finds -> a file of each."""
    kinds, files = list(KINDS), []
    for number, start in enumerate(range(0, len(kinds), stream.SEQUENCES)):
        seed = _FIRST_SEED + number
        domain = stream.DOMAINS["wild"]
        stream.DOMAINS["wild"] = domain._replace(kinds=kinds[start : start + stream.SEQUENCES])
        stream.write_stream(folder / str(seed), config.DEMO, "wild", seed, _FRAMES)
        detect(folder / str(seed), folder / f"{seed}.npz")
        files.append(folder / f"{seed}.npz")
    return files


def errors(files: list[Path], skeletons: dict[str, Skeleton]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Errors (N,23,2) m in the picture, found and hidden (N,23) bool, the bones' rotations (N,23,3,3)."""
    parts = []
    for file in files:
        with np.load(file) as npz:
            for letter, gender in _GENDERS.items():
                people = npz["gender"] == letter
                columns = {key: torch.as_tensor(npz[key][people]) for key in npz.files if npz[key].dtype.kind == "f"}
                parts.append(_errors({key: value.float() for key, value in columns.items()}, skeletons[gender]))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _errors(people: dict[str, Tensor], skeleton: Skeleton) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rotmat = axis_angle_to_rotmat(people["pose"].reshape(-1, 3)).view(-1, 24, 3, 3)
    joints, bones = skeleton(rotmat, people["betas"])
    found, exact = people["keypoints_px"][:, SEEN_ROWS], people["exact_px"][..., :2]
    # px of a metre, from all joints of the person
    flat, seen = (points - points.mean(1, keepdim=True) for points in (joints[..., :2], exact))
    metre = (flat * seen).sum((1, 2)) / (flat**2).sum((1, 2))
    away = (found[..., :2] - exact[:, SEEN_ROWS]) / metre[:, None, None]
    pelvis = joints[:, rows(["OP MidHip"], JOINTS49)]
    hidden = hidden_joints(joints - pelvis + torch.tensor([0.0, 0.0, _DISTANCE]))
    return away, found[..., 2] > CONFIDENT, hidden, bones[:, Detector().bones]


def offset_of(away: Tensor, bones: Tensor) -> Tensor:
    """The way (3,) m in the bone's axes that explains most of the errors (N,2), by reweighted least squares."""
    views, weights = bones[:, :2], torch.ones(len(away))
    for _ in range(20):
        normal = torch.einsum("n,nij,nik->jk", weights, views, views) + 0.5 * torch.eye(3)
        offset = torch.linalg.solve(normal, torch.einsum("n,nij,ni->j", weights, views, away))
        weights = 1 / (1 + ((away - views @ offset).norm(dim=-1) / _OUTLIER) ** 2)
    return offset


def table(away: Tensor, found: Tensor, hidden: Tensor, bones: Tensor) -> list[str]:
    """A line of Markdown for each of PARTS, both sides together."""
    lines = ["| joint | offset, cm | noise, mm | hidden, mm | missed | hidden, missed |", "|---|---|---|---|---|---|"]
    mirrored = torch.tensor([-1.0, 1.0, 1.0])
    for ending in PARTS:
        which = [row for row, name in enumerate(DETECTED23) if name.endswith(ending)]
        offsets, visible_noise, hidden_noise = [], [], []
        for row in which:
            ok = found[:, row]
            if not ok.any():  # a joint that the detector does not have
                continue
            offset = offset_of(away[ok, row], bones[ok, row])
            rest = (away[ok, row] - bones[ok, row][:, :2] @ offset).norm(dim=-1)
            offsets.append(offset * (mirrored if DETECTED23[row][3] == "R" else 1))
            visible_noise.append(rest[~hidden[ok, row]])
            hidden_noise.append(rest[hidden[ok, row]])
        if not offsets:
            continue
        cells = [" ".join(f"{100 * value:+.1f}" for value in torch.stack(offsets).mean(0))]
        # the median distance of two normal numbers is 1.18 deviations
        cells += [
            f"{1000 * torch.cat(noise).median() / 1.18:.0f}" if torch.cat(noise).numel() else ""
            for noise in (visible_noise, hidden_noise)
        ]
        cells += [f"{1 - found[:, which][some].float().mean():.2f}" for some in (~hidden[:, which], hidden[:, which])]
        lines.append(f"| {ending} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Render, detect, measure, print."""
    bodies = load_bodies(config.DEMO / "smpl", config.DEMO / "spin_data" / "J_regressor_extra.npy", _GENDERS.values())
    skeletons = {gender: Skeleton(body.joints_only()) for gender, body in bodies.items()}
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(table(*errors(render(Path(folder)), skeletons))))


if __name__ == "__main__":
    main()
