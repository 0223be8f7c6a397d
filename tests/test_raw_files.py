"""HDF5, CDF and MATLAB files as data sets come in: against the libraries that wrote them, damaged and hostile."""

import struct
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import toys

from utils.data_preprocess.raw_files import hdf5_array, read_cdf, read_cells

CELLS = np.empty((3, 2), object)
CELLS[:, 0] = [np.arange(20.0).reshape(5, 4) / 7, np.float32([[1, 2, 3]]), np.array([[-5, 300], [7, -70000]])]
CELLS[:, 1] = [np.uint8([[1, 2]]), np.zeros((0, 3)), np.array([[7.5]])]


@pytest.mark.parametrize("is_compressed", [False, True])
def test_cells_of_matrices_are_those_that_scipy_reads(tmp_path, is_compressed):
    file = tmp_path / "a.mat"
    content = {"before": np.ones((50, 50)), "a": CELLS, "text": "abc", "record": {"b": 1.0}, "c": CELLS[:1]}
    scipy.io.savemat(file, content, do_compression=is_compressed)
    read, wanted = read_cells(file, ("a", "c")), scipy.io.loadmat(file)
    assert read.keys() == {"a", "c"}
    for name, cells in read.items():
        for ours, theirs in zip(cells, wanted[name].ravel(order="F"), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_array_equal(ours, theirs)


def test_a_big_endian_file_is_read(tmp_path):
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    def matrix(kind: int, shape: tuple[int, int], name: bytes, content: bytes) -> bytes:
        parts = (struct.pack(">II", kind, 0), struct.pack(">ii", *shape), name)
        return element(14, b"".join(map(element, (6, 5, 1), parts)) + content)

    cell = matrix(6, (1, 2), b"", element(9, struct.pack(">dd", 1.5, -2.5)))
    header = b" " * 124 + b"\x01\x00MI"
    (tmp_path / "a.mat").write_bytes(header + matrix(1, (1, 1), b"a", cell))
    assert read_cells(tmp_path / "a.mat", ("a",))["a"][0].tolist() == [[1.5, -2.5]]


def test_a_file_without_a_variable_or_with_another_kind_of_it_is_an_error(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {"a": np.ones((2, 2)), "complex": np.array([[np.ones((1, 1)) * 1j]], object)})
    with pytest.raises(KeyError, match="b"):
        read_cells(file, ("b",))
    with pytest.raises(ValueError, match="a is no array of 4 cells"):
        read_cells(file, ("a",))
    wrapped = np.empty((1, 1), object)
    wrapped[0, 0] = np.ones((1, 1)) * 1j
    scipy.io.savemat(file, {"a": wrapped})
    with pytest.raises(ValueError, match="complex"):
        read_cells(file, ("a",))


def test_every_truncation_of_a_matlab_file_is_an_error(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {"a": CELLS})
    whole = file.read_bytes()
    for length in range(0, len(whole), 3):
        file.write_bytes(whole[:length])
        with pytest.raises((ValueError, KeyError)):
            read_cells(file, ("a",))


def test_a_variable_of_a_cdf_file_is_what_was_written(tmp_path):
    table = np.random.default_rng(0).normal(size=(11, 96))
    toys.write_cdf(tmp_path / "a.cdf", table)
    np.testing.assert_array_equal(read_cdf(tmp_path / "a.cdf", "Pose"), table[None].astype(np.float32))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_dataset_of_an_hdf5_file_is_what_was_written(tmp_path, compression):
    with h5py.File(tmp_path / "a.h5", "w") as content:
        content.create_dataset("zeros", data=np.zeros((500, 500)), compression=compression)
        content.create_dataset("empty", data=np.zeros((0, 3)))
        content["flags"] = np.array([True, False])
    with h5py.File(tmp_path / "a.h5") as content:
        assert (hdf5_array(content, "zeros") == np.zeros((500, 500))).all()
        assert hdf5_array(content, "empty").shape == (0, 3)
        assert hdf5_array(content, "flags").tolist() == [True, False]


# hostile ones


def hdf5_never_written(file: Path) -> None:
    with h5py.File(file, "w") as content:
        content.create_dataset("a", shape=(10**6, 10**4), dtype="f8")


def hdf5_mostly_never_written(file: Path) -> None:
    with h5py.File(file, "w") as content:
        dataset = content.create_dataset("a", shape=(10**6, 10**4), dtype="f8", chunks=(8, 8))
        dataset[0, 0] = 1


def hdf5_elsewhere(file: Path) -> None:
    (file.parent / "secret").write_bytes(b"secret00")
    with h5py.File(file, "w") as content:
        content.create_dataset("a", shape=(1,), dtype="f8", external=[(str(file.parent / "secret"), 0, 8)])


def hdf5_virtual(file: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(file.parent / "other.h5"), "a", shape=(4,))
    with h5py.File(file, "w") as content:
        content.create_virtual_dataset("a", layout)


def hdf5_group(file: Path) -> None:
    with h5py.File(file, "w") as content:
        content.create_group("a")


def hdf5_text(file: Path) -> None:
    with h5py.File(file, "w") as content:
        content["a"] = ["text"]


HDF5 = {
    hdf5_never_written: "a is announced with 80000000000 bytes, more than the file holds",
    hdf5_mostly_never_written: "a is announced with 80000000000 bytes, more than the file holds",
    hdf5_elsewhere: "a lies in another file",
    hdf5_virtual: "a lies in another file",
    hdf5_group: "a holds no numbers",
    hdf5_text: "a holds no numbers",
}


@pytest.mark.parametrize("write", HDF5, ids=lambda write: write.__name__)
def test_an_hdf5_file_that_announces_what_it_does_not_hold_is_an_error(tmp_path, write):
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as content, pytest.raises(ValueError, match=HDF5[write]):
        hdf5_array(content, "a")


def peak_of(read, *arguments) -> float:
    """Bytes that are reserved at most while something is read that must not be read."""
    tracemalloc.start()
    with pytest.raises(Exception):  # noqa: B017, of whichever kind
        read(*arguments)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_matlab_file_that_announces_what_it_does_not_hold_is_an_error(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {"a": CELLS})
    whole = file.read_bytes()
    shape = struct.pack("<ii", *CELLS.shape)
    assert whole.count(shape) == 1
    for sides in ((2**31 - 1, 2**31 - 1), (10**6, 10**4), (-1, 5)):
        file.write_bytes(whole.replace(shape, struct.pack("<ii", *sides)))
        assert peak_of(read_cells, file, ("a",)) < 1e6
    matrix = struct.pack("<ii", 5, 4)
    file.write_bytes(whole.replace(matrix, struct.pack("<ii", 10**5, 10**5)))
    assert peak_of(read_cells, file, ("a",)) < 1e6
    for size in (2**31, 2**32 - 8):
        file.write_bytes(whole[:132] + struct.pack("<I", size) + whole[136:])
        assert peak_of(read_cells, file, ("a",)) < 1e6


def test_variables_that_are_not_wanted_are_not_unpacked(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {"zeros": np.zeros((2000, 2000)), "a": CELLS}, do_compression=True)
    tracemalloc.start()
    read_cells(file, ("a",))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def change_cdf(file: Path, record_type: int, offset: int, value: int) -> None:
    """Change a 4-byte number of the first internal record of a type of a CDF 3 file."""
    content = bytearray(file.read_bytes())
    place = 8
    while int.from_bytes(content[place + 8 : place + 12], "big") != record_type:
        place += int.from_bytes(content[place : place + 8], "big")
    content[place + offset : place + offset + 4] = value.to_bytes(4, "big")
    file.write_bytes(content)


GLOBAL, Z_VARIABLE = 2, 8  # types of records


def test_a_cdf_file_that_announces_what_it_does_not_hold_is_an_error(tmp_path):
    file = tmp_path / "a.cdf"
    toys.write_cdf(file, np.ones((11, 96)))
    change_cdf(file, Z_VARIABLE, 24, 2**31 - 2)  # the number of records
    assert peak_of(read_cdf, file, "Pose") < 10e6
    with pytest.raises(ValueError, match=r"Pose is announced with .* bytes, more than the file holds"):
        read_cdf(file, "Pose")


def test_a_cdf_file_that_keeps_its_reader_busy_for_ever_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data_preprocess.raw_files._SECONDS", 0.5)
    file = tmp_path / "a.cdf"
    toys.write_cdf(file, np.ones((11, 96)))
    change_cdf(file, GLOBAL, 56, 2**31 - 1)  # the number of dimensions, which cdflib counts one by one
    start = time.process_time()
    with pytest.raises(TimeoutError, match="it takes too long"):
        read_cdf(file, "Pose")
    assert time.process_time() - start < 10
    toys.write_cdf(file, np.ones((11, 96)))
    assert read_cdf(file, "Pose").shape == (1, 11, 96)


def test_a_cdf_file_is_read_outside_of_the_main_thread_too(tmp_path):
    toys.write_cdf(tmp_path / "a.cdf", np.ones((11, 96)))
    shapes = []
    thread = threading.Thread(target=lambda: shapes.append(read_cdf(tmp_path / "a.cdf", "Pose").shape))
    thread.start()
    thread.join()
    assert shapes == [(1, 11, 96)]


def test_zlib_makes_nothing_smaller_than_is_taken_to_be_possible():
    zeros = bytes(10**7)
    assert len(zeros) / len(zlib.compress(zeros, 9)) < 1100
