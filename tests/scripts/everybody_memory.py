"""Follow everybody in walk.mp4 by a tiny network, print the peak of memory in MB: folder, keypoints, frames, output."""

import resource
import sys
from pathlib import Path

import numpy as np
import toys

import boa
import models.hmr
import parts
import runs
import streams
from footage.people import Crop
from models.smpl import load_bodies


class InThisProcess:
    """Runs the parts here, so that what they need counts, too."""

    def run(self, command: list[str], output: Path) -> int:
        boa.main(command[len(parts.PROGRAM) :])
        return 0


# what is slow and keeps nothing: crops, and bodies of thousands of vertices
Crop.image = lambda crop, rgb: np.zeros((224, 224, 3), np.float32)
assets = streams.DEMO_ASSETS
body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"].joints_only()
body.faces = np.array([[0, 1, 2]])
runs.load_bodies = parts.load_bodies = lambda *files: {"neutral": body}
parts._launcher = lambda options, parent: InThisProcess()
models.hmr.load_hmr = lambda *files: toys.TinyRegressor()
folder, keypoints, count, output = sys.argv[1:]
boa.main(
    [
        *("--name", "x", "--expdir", output, "--video", f"{folder}/walk.mp4", "--keypoints", keypoints),
        *("--max_frames", count, "--method", "frozen", "--person", "all", "--export", "glb"),
        *("--model_file", str(streams.FOOTAGE_ASSETS.base_model)),
    ]
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
