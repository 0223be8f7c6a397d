"""Ways to damage the files of raw data sets, and to look into what becomes of them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.io

Damage = Callable[[Path], None]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def gone(file: Path) -> None:
    file.unlink()


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def change_h5(name, change):
    def damage(file: Path) -> None:
        with h5py.File(file, "a") as content:
            array = change(content[name][()])
            del content[name]
            if array is not None:
                content[name] = array

    return damage


def change_mat(name, change):
    def damage(file: Path) -> None:
        content = {key: value for key, value in scipy.io.loadmat(file).items() if not key.startswith("_")}
        cameras = content.pop(name)
        if change:
            cameras[2, 0] = change(cameras[2, 0])
            content[name] = cameras
        scipy.io.savemat(file, content)

    return damage


def all_cameras(change):
    """Change the joints of every camera of a training annotation."""

    def damage(file: Path) -> None:
        content = {key: value for key, value in scipy.io.loadmat(file).items() if not key.startswith("_")}
        for camera in range(14):
            content["annot2"][camera, 0] = change(content["annot2"][camera, 0])
        scipy.io.savemat(file, content)

    return damage


def change_pickle(name, change):
    def damage(file: Path) -> None:
        content = pickle.loads(file.read_bytes())
        value = content.pop(name)
        if change:
            content[name] = [change(array) for array in value]
        file.write_bytes(pickle.dumps(content, protocol=2))

    return damage


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[0] = np.nan
    return array


def change_sequences(root: Path, **changes) -> None:
    """Change arrays of every person of every raw sequence of 3DPW."""
    for file in (root / "sequenceFiles/test").glob("*.pkl"):
        raw = pickle.loads(file.read_bytes())
        for name, change in changes.items():
            raw[name] = [change(array) for array in raw[name]]
        file.write_bytes(pickle.dumps(raw, protocol=2))


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as npz:
        return {name: npz[name] for name in npz.files}
