"""Follow everybody in walk.mp4 by a tiny network, print the peak of memory in MB: folder, keypoints, frames, output."""

import re
import sys
from pathlib import Path

import numpy as np
import torch
import toys

import boa
import models.hmr
import parts
import runs
import streams
from footage.people import Crop
from models.smpl import SMPL, load_bodies
from utils.structures import SmplParams


class Still(toys.TinyRegressor):
    """The tiny network without the pooling of images, which takes it longest: everybody stands still."""

    inputs = ("keypoints_2d",)

    def forward(self, keypoints_2d: torch.Tensor) -> SmplParams:
        return SmplParams(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10), torch.tensor([[0.9, 0.0, 0.0]]))


class InThisProcess:
    """Runs the parts here, so that what they need counts, too."""

    def run(self, command: list[str], output: Path) -> int:
        boa.main(command[len(parts.PROGRAM) :])
        return 0


# what is slow and keeps nothing: crops, and posing and drawing thousands of vertices
Crop.image = lambda crop, rgb: np.zeros((224, 224, 3), np.float32)
assets = streams.DEMO_ASSETS
body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"].joints_only()
body.faces = np.array([[0, 1, 2]])
rest = body.from_axis_angle(torch.zeros(1, 72), torch.zeros(1, 10))
SMPL.forward = lambda *pose, **flags: rest
runs.load_bodies = parts.load_bodies = lambda *files: {"neutral": body}
parts._launcher = lambda options, parent: InThisProcess()
models.hmr.load_hmr = lambda *files: Still()
folder, keypoints, count, output = sys.argv[1:]
Path("/proc/self/clear_refs").write_text("5")  # the peak from here on: reading the whole body has one of its own
boa.main(
    [
        *("--name", "x", "--expdir", output, "--video", f"{folder}/walk.mp4", "--keypoints", keypoints),
        *("--max_frames", count, "--method", "frozen", "--person", "all", "--export", "glb"),
        *("--model_file", str(streams.FOOTAGE_ASSETS.base_model)),
    ]
)
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
