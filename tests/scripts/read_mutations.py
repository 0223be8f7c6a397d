"""Read damaged copies of the files of each reader: count, seed and perhaps names of readers -> a line of JSON for each.

Anything but success or one line of UserError ends it: another exception, code that is run, 30 s for a file, 2 GB.
"""

import json
import os
import pickle
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io
import torch
import toys
from mutations import mutations

from datasets import h36m as stream_h36m
from datasets import mpi_inf_3dhp as stream_3dhp
from datasets import pw3d as stream_3dpw
from models.hmr import load_mean_params
from models.prior import PosePrior
from models.smpl import read_model
from utils.checkpoint import read_weights
from utils.data_preprocess import h36m, mpi_inf_3dhp, pw3d
from utils.errors import UserError
from utils.files import load_npy

SECONDS, MEMORY = 30, 2 * 2**30
FRAMES = 3


class Reader(NamedTuple):
    """A good file and what reads it; where it is an archive, perhaps the end of the name of the member to damage."""

    file: Path
    read: Callable[[Path], object]
    member: str = ""

    def whole(self) -> bytes:
        """The bytes that are damaged."""
        if not self.member:
            return self.file.read_bytes()
        with zipfile.ZipFile(self.file) as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith(self.member)))

    def write(self, file: Path, damaged: bytes) -> None:
        """The file with damaged bytes, the sums of the archive made anew."""
        if not self.member:
            file.write_bytes(damaged)
            return
        with zipfile.ZipFile(self.file) as archive, zipfile.ZipFile(file, "w") as copy:
            for name in archive.namelist():
                copy.writestr(name, damaged if name.endswith(self.member) else archive.read(name))


def write_columns(file: Path, **more: np.ndarray) -> Path:
    toys.write_source(file.parent, file, FRAMES)
    with np.load(file) as npz:
        np.savez(file, **dict(npz), **more)
    return file


def write_cells(file: Path, is_compressed: bool) -> Path:
    cells = {key: np.empty((14, 1), object) for key in ("annot2", "annot3")}
    rng = np.random.default_rng(0)
    for camera in range(14):
        cells["annot2"][camera, 0] = rng.integers(0, 2048, (1, 56)).astype(float)
        cells["annot3"][camera, 0] = rng.normal(0, 1000, (1, 84))
    scipy.io.savemat(file, cells, do_compression=is_compressed)
    return file


def write_masks(file: Path) -> Path:
    with h5py.File(file, "w") as content:
        references = content.create_dataset("Masks", (FRAMES, 1), dtype=h5py.ref_dtype)
        for frame in range(FRAMES):
            mask = np.zeros((40, 30), np.uint8)
            mask[5:20, 5:25] = 1
            references[frame, 0] = content.create_dataset(f"m{frame}", data=mask, compression="gzip").ref
    return file


def readers(folder: Path) -> dict[str, Reader]:
    """Every reader of the data sets, body models and networks."""
    images = np.array([f"imageFiles/a/image_{frame:05d}.jpg" for frame in range(FRAMES)])
    of_3dpw = {"smpl_j2d": np.full((FRAMES, 49, 3), 100.0), "gender": np.array(["m", "f", "m"])}
    of_3dhp = {"activity": np.arange(FRAMES)}
    toys.write_3dpw(folder / "3DPW", {"downtown_bar_00": "m"}, frames=2)
    toys.write_3dhp(folder / "3DHP", sequences=["TS1"])
    toys.write_cdf(folder / "joints.cdf", np.random.default_rng(0).normal(size=(FRAMES, 96)))
    assets = toys.write_assets(folder / "assets")
    weights = {"conv1.weight": torch.arange(6.0).view(2, 3), "bn1.bias": torch.ones(2)}
    content = {"model": weights, "best": np.float64(51.3), "history": np.ones(3), "args": {"lr": 1e-4}}
    torch.save(content, folder / "model.pt")
    torch.save(content, folder / "model5.pt", pickle_protocol=5)
    torch.save(content, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    annotation = {"new_poses": np.zeros((FRAMES, 72)), "betas": np.zeros(10)}
    for protocol in (0, 2, 5):
        (folder / f"mosh{protocol}.pkl").write_bytes(pickle.dumps(annotation, protocol))
    (folder / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(toys.smpl_model(), 2))
    np.save(folder / "regressor.npy", np.ones((9, 12)))
    first = folder / "first"
    named = {"imgname": np.array([f"test/TS{frame + 1}/imageSequence/img_000001.jpg" for frame in range(FRAMES)])}
    hp3d = write_columns(folder / "hp3d.npz", **of_3dhp)
    with np.load(hp3d) as npz:
        np.savez(hp3d, **{**dict(npz), **named})
    sequence = write_columns(first / "sequence.npz", **of_3dpw)
    with np.load(sequence) as npz:
        np.savez(sequence, **{**dict(npz), "imgname": images})
    for frame, name in enumerate(images):
        toys.write_image(first / name, frame)

    def crop_of(file: Path) -> object:
        return stream_3dpw.join_sequences(first, [file], "-").crop(0)

    return {
        "npz, labelled source": Reader(
            write_columns(folder / "source.npz"), lambda file: stream_h36m.open_source(folder, file, "-").crop(0)
        ),
        "npz, sequence of 3DPW": Reader(sequence, crop_of),
        **{f"npz, {name}": Reader(sequence, crop_of, f"{name}.npy") for name in ("imgname", "scale", "gender")},
        "npz, MPI-INF-3DHP": Reader(hp3d, lambda file: stream_3dhp.open_stream(folder, file, "-")),
        "npz, mean parameters": Reader(assets.mean_params, load_mean_params),
        "npz, body": Reader(assets.smpl_model_dir / "SMPL_NEUTRAL.npz", read_model),
        "npy": Reader(folder / "regressor.npy", lambda file: load_npy(file, (9, 12), "-")),
        "checkpoint": Reader(folder / "model.pt", lambda file: read_weights(file, "-")),
        "checkpoint, protocol 5": Reader(folder / "model5.pt", lambda file: read_weights(file, "-")),
        "checkpoint, pickle": Reader(folder / "model.pt", lambda file: read_weights(file, "-"), "data.pkl"),
        "checkpoint, pickle of protocol 5": Reader(
            folder / "model5.pt", lambda file: read_weights(file, "-"), "data.pkl"
        ),
        "checkpoint, legacy": Reader(folder / "legacy.pt", lambda file: read_weights(file, "-")),
        "pickle, sequence of 3DPW": Reader(folder / "3DPW/sequenceFiles/test/downtown_bar_00.pkl", pw3d.read_sequence),
        **{f"pickle, protocol {n}": Reader(folder / f"mosh{n}.pkl", h36m.read_mosh) for n in (0, 2, 5)},
        "pickle, body": Reader(folder / "SMPL_NEUTRAL.pkl", read_model),
        "pickle, prior": Reader(assets.gmm, PosePrior),
        "CDF": Reader(folder / "joints.cdf", lambda file: h36m.read_cdf(file, 3)),
        "HDF5, joints": Reader(folder / "3DHP/mpi_inf_3dhp_test_set/TS1/annot_data.mat", mpi_inf_3dhp.read_test),
        "HDF5, masks": Reader(write_masks(folder / "masks.mat"), lambda file: h36m.read_boxes(file, range(FRAMES))),
        "MATLAB": Reader(write_cells(folder / "cells.mat", False), mpi_inf_3dhp.read_train),
        "MATLAB, compressed": Reader(write_cells(folder / "packed.mat", True), mpi_inf_3dhp.read_train),
    }


def forbid_what_no_reader_does(event: str, arguments: tuple) -> None:
    """An audit hook: a file that starts a program, connects, or writes elsewhere than to temporary files."""
    if event in ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "socket.connect"):
        os.write(2, f"{event} {arguments}\n".encode())
        os._exit(3)
    is_writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if is_writing and not str(arguments[0]).startswith((tempfile.gettempdir(), "/dev/")):
        os.write(2, f"{event} {arguments}\n".encode())
        os._exit(3)


def try_reader(name: str, reader: Reader, count: int, seed: int) -> dict[str, object]:
    """Read that many damaged copies -> what came of them."""
    whole = reader.whole()
    reader.read(reader.file)  # the good file is read
    damaged = reader.file.with_stem(f"{reader.file.stem}_damaged")
    found = {"reader": name, "bytes": len(whole), "read": 0, "refused": 0, "slowest_s": 0.0}
    for number, content in enumerate(mutations(whole, count, seed)):
        reader.write(damaged, content)
        start = time.monotonic()
        try:
            reader.read(damaged)
            found["read"] += 1
        except UserError as error:
            assert str(error).isprintable() and str(damaged.parent) in str(error), f"{name} {number}: {error}"
            found["refused"] += 1
        except BaseException:
            kept = Path(tempfile.gettempdir()) / f"failed{damaged.suffix}"
            damaged.replace(kept)
            print(f"{name}, number {number}, kept as {kept}", file=sys.stderr)
            raise
        took = time.monotonic() - start
        assert took < SECONDS, f"{name} {number} took {took:.0f} s"
        found["slowest_s"] = max(found["slowest_s"], round(took, 3))
    return found


def main() -> None:
    count, seed, *names = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        known = readers(Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (virtual + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        sys.addaudithook(forbid_what_no_reader_does)
        for name in names or known:
            found = try_reader(name, known[name], int(count), int(seed))
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(json.dumps({**found, "grown_mb": round(grown)}), flush=True)


if __name__ == "__main__":
    main()
