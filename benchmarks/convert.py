"""Milliseconds per frame of the converters of 3DPW and MPI-INF-3DHP. `make benchmark` runs it.

The second one's stand beside those of decoding each image, of the test set's size. All is made on the spot: a body with
the size of SMPL, 1,000 person-frames, images of smooth colours with noise as a camera's.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import cv2
import h5py
import numpy as np

PROJECT = Path(__file__).parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import toys  # noqa: E402

import streams  # noqa: E402
from models.smpl import load_bodies  # noqa: E402
from utils.data_preprocess import mpi_inf_3dhp, pw3d  # noqa: E402
from utils.image import read_rgb  # noqa: E402

_FRAMES = 100  # of each sequence
_SIDE = 2048  # px
_RUNS = 3
_PERSON_FRAMES = 1000


def time_3dpw(folder: Path) -> float:
    """Seconds per person-frame of the 3DPW converter, from the raw pickle to the npz."""
    toys.write_3dpw(folder, {"downtown_bar_00": "mf"}, frames=_PERSON_FRAMES // 2)
    assets = streams.DEMO_ASSETS
    bodies = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ("male", "female"))
    bodies = {gender: body.joints_only() for gender, body in bodies.items()}
    start = time.perf_counter()
    pw3d.convert(folder, folder / "out", bodies)
    return (time.perf_counter() - start) / _PERSON_FRAMES


def write_test_set(root: Path) -> list[Path]:
    """Write the raw test set; all frames are valid and have their joints inside -> its images."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8), (_SIDE, _SIDE))
    picture = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    original = root / "original.jpg"
    cv2.imwrite(str(original), picture)
    images = []
    for name in mpi_inf_3dhp.TEST_SEQUENCES:
        folder = root / "mpi_inf_3dhp_test_set" / name / "imageSequence"
        folder.mkdir(parents=True)
        for frame in range(_FRAMES):
            images.append(folder / f"img_{frame + 1:06d}.jpg")
            shutil.copy(original, images[-1])
        with h5py.File(folder.parent / "annot_data.mat", "w") as file:
            file["annot2"] = rng.uniform(0, _SIDE - 1, (_FRAMES, 1, 17, 2))
            file["annot3"] = rng.normal(0, 500, (_FRAMES, 1, 17, 3))
            file["valid_frame"] = np.ones((_FRAMES, 1))
    return images


def main() -> None:
    """Print one line a figure."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"3DPW converter: {1000 * time_3dpw(Path(folder)):.2f} ms per person-frame")
    with tempfile.TemporaryDirectory() as folder:
        images = write_test_set(Path(folder))
        converting = []
        for run in range(_RUNS):
            start = time.perf_counter()
            mpi_inf_3dhp.convert_test(Path(folder), Path(folder) / f"{run}" / "mpi_inf_3dhp_test.npz")
            converting.append((time.perf_counter() - start) / len(images))
        start = time.perf_counter()
        for image in images[:_FRAMES]:
            read_rgb(image)
        decoding = (time.perf_counter() - start) / _FRAMES
    seconds = float(np.median(converting))
    print(f"MPI-INF-3DHP converter: {1000 * seconds:.2f} ms per frame, {decoding / seconds:.0f} times faster than")
    print(f"decoding each image ({1000 * decoding:.1f} ms)")


if __name__ == "__main__":
    main()
