"""Adapt a toy network to `count` frames of the toys in a folder, and print the peak of memory in MB.

python memory_of_a_stream.py <folder of toys> <count> <folder for results>
"""

import functools
import resource
import sys
from pathlib import Path

import numpy as np
import torch
import toys

import boa
from datasets import pw3d
from datasets.base import CroppedFrames, batches
from models.prior import PosePrior
from models.smpl import load_bodies
from utils.evaluation import Scorer, score_3dpw
from utils.results import BenchmarkResults
from utils.run_folder import RunFolder, create_folder

world, count, output = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
stream, _ = pw3d.open_stream(world / "3DPW", world / "data/dataset_extras/3dpw_vid", "-")
rows = np.arange(count) % len(stream)
columns = {name: column[rows] for name, column in stream.columns.items()}
columns["scale"] = np.full(count, 1.2)  # a crop that need not be enlarged is faster
repeated = CroppedFrames(stream.images, columns, Path("-"))
spin = world / "data" / "spin_data"
bodies = load_bodies(world / "data" / "smpl", spin / "J_regressor_extra.npy")
regressor = torch.as_tensor(np.load(spin / "J_regressor_h36m.npy"), dtype=torch.float32)
model = toys.TinyRegressor().eval()
options = boa.Options(name="memory", labelloss_weight=0.0)
learner = boa.make_learner(model, bodies["neutral"], PosePrior(spin / "gmm_08.pkl"), options)
scorer = Scorer(functools.partial(score_3dpw, bodies=bodies, regressor=regressor))
results = BenchmarkResults(RunFolder(create_folder(output, "memory", False), options, {}), count, True)
boa.run_stream(batches(repeated, 1), None, learner, scorer, results)
results.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
