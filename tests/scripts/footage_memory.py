"""Run a tiny network over a clip and print the peak of memory in MB: clip, keypoints, frames, folder of the run."""

import resource
import sys
from pathlib import Path

import numpy as np
import toys

import boa
import streams
from footage.overlay import OverlayVideo
from footage.people import Crop, Footage
from footage.poses import PosesFile
from footage.results import FootageResults
from footage.video import Video
from models.prior import PosePrior
from models.smpl import load_bodies
from utils.evaluation import FootageScorer
from utils.results import recorded
from utils.run_folder import RunFolder

Crop.image = lambda crop, rgb: np.zeros((224, 224, 3), np.float32)  # the slowest part, and it keeps nothing
clip, keypoints, count, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
assets = streams.DEMO_ASSETS
footage = Footage(Video(clip, max_frames=count), keypoints)
body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"]
run = RunFolder(folder, boa.Options(), {})
overlay = OverlayVideo(folder / "overlay.mp4", footage.rate, body.faces)
results = FootageResults(run, footage, overlay, PosesFile(folder, body, smooth=True, export="none"))
learner = boa.make_learner(toys.TinyRegressor().eval(), body, PosePrior(assets.gmm), boa.Options(), adapts=False)
with recorded(results):
    boa.run_stream(iter(footage), None, learner, FootageScorer(None), results)
assert len(run.rows) == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
