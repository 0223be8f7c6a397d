"""Files of arrays: of other versions, damaged, and such that announce more than they hold."""

import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import toys

from datasets import h36m, pw3d
from datasets.base import read_columns
from models.hmr import load_mean_params
from models.prior import PosePrior
from models.smpl import read_model
from utils.errors import UserError
from utils.files import load_npy, load_npz, read_record


def header(shape: tuple[int, ...], dtype: str = "<f8", version: int = 1) -> bytes:
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    length = len(text).to_bytes(2 * version, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


def write_npz(file: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file


def refused_without_memory(read, *arguments) -> str:
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        read(*arguments)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", [(10**10,), (10**5, 10**5), (2**62, 4)])
def test_an_array_that_is_announced_larger_than_its_file_is_refused(tmp_path, compression, version, shape):
    content = header(shape, version=version) + bytes(1000)
    file = write_npz(tmp_path / "a.npz", compression, a=content)
    assert "is announced, more than the file holds" in refused_without_memory(load_npz, file, ("a",), "-")
    (tmp_path / "a.npy").write_bytes(content)
    assert "is announced, more" in refused_without_memory(load_npy, tmp_path / "a.npy", shape, "-")


def test_texts_of_no_length_cannot_be_many(tmp_path):
    file = write_npz(tmp_path / "a.npz", a=header((10**12,), "<U0"))
    assert "is announced, more than the file holds" in refused_without_memory(load_npz, file, ("a",), "-")


def test_a_member_that_is_announced_larger_than_its_file_is_refused(tmp_path):
    file = write_npz(tmp_path / "a.npz", a=header((10**8,)) + bytes(100))
    content = file.read_bytes()
    place = content.rindex(b"a.npy") - 46
    huge = (10**9).to_bytes(4, "little")
    file.write_bytes(content[: place + 20] + huge + huge + content[place + 28 :])
    assert "a.npy is announced with 1000000000 bytes" in refused_without_memory(load_npz, file, ("a",), "-")


def test_compressions_without_a_limit_are_refused(tmp_path):
    file = write_npz(tmp_path / "a.npz", zipfile.ZIP_LZMA, a=header((10**7,)) + bytes(8 * 10**7))
    assert "compressed in an unknown way" in refused_without_memory(load_npz, file, ("a",), "-")


class Hostile:
    """Writes a file when it is read carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_arrays_of_objects_are_refused_and_run_nothing(tmp_path):
    objects = np.array([Hostile(tmp_path / "marker")], object)
    np.savez(tmp_path / "a.npz", a=objects)
    np.save(tmp_path / "a.npy", objects)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(objects))
    assert "it holds Python objects" in refused_without_memory(load_npz, tmp_path / "a.npz", ("a",), "-")
    assert "it holds Python objects" in refused_without_memory(load_npy, tmp_path / "a.npy", (1,), "-")
    refused_without_memory(load_npy, tmp_path / "b.npy", (1,), "-")
    assert not (tmp_path / "marker").exists()


@pytest.mark.filterwarnings("error")
def test_names_and_headers_of_python_2_are_read(tmp_path):
    names = np.array([b"a.jpg", b"longer.jpg", b"caf\xc3\xa9.jpg"])
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3L, 2L), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    old = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + np.ones((3, 2)).tobytes()
    np.savez(tmp_path / "a.npz", imgname=names)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("center.npy", old)
    read = load_npz(tmp_path / "a.npz", ("imgname", "center"), "-")
    assert read["imgname"].tolist() == ["a.jpg", "longer.jpg", "café.jpg"]
    assert (read["center"] == 1).all() and read["center"].shape == (3, 2)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(50), b"text", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    assert "a.npz" in refused_without_memory(load_npz, tmp_path / "a.npz", ("a",), "-")
    assert read_record(tmp_path / "a.npz") is None


def test_an_array_of_another_shape_or_kind_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    assert load_npy(tmp_path / "a.npy", (2, 3), "-").shape == (2, 3)
    with pytest.raises(UserError, match=r"a\.npy has shape \(2, 3\) where \(3, 2\) is needed"):
        load_npy(tmp_path / "a.npy", (3, 2), "-")
    for array in (np.array(["a"]), np.array([np.nan])):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UserError, match=r"a\.npy holds what is no finite number"):
            load_npy(tmp_path / "a.npy", (1,), "-")


# processed data sets

FRAMES = 3
COLUMNS = {
    "imgname": np.array([f"images/S9_Walking.54138969_{frame:06d}.jpg" for frame in range(FRAMES)]),
    "center": np.full((FRAMES, 2), 100.0),
    "scale": np.ones(FRAMES),
    "part": np.ones((FRAMES, 24, 3)),
    "S": np.ones((FRAMES, 24, 4)),
    "pose": np.zeros((FRAMES, 72)),
    "shape": np.zeros((FRAMES, 10)),
    "gender": np.array(["m", "f", "m"]),
    "smpl_j2d": np.ones((FRAMES, 49, 3)),
    "person": np.zeros(FRAMES, np.int64),
}
WRONG = {
    "another shape": ({"part": np.ones((FRAMES, 23, 3))}, r"part has shape \(3, 23, 3\) where \(3, 24, 3\) is needed"),
    "another length": ({"scale": np.ones(2)}, r"scale has shape \(2,\) where \(3,\) is needed"),
    "one number": ({"S": np.array(1.0)}, r"S has shape \(\) where"),
    "text": ({"center": np.full((FRAMES, 2), "a")}, r"center holds <U1 where numbers is needed"),
    "names of numbers": ({"imgname": np.arange(FRAMES)}, r"imgname holds int64 where text is needed"),
    "not finite": ({"S": np.full((FRAMES, 24, 4), np.inf)}, r"joints_3d of \S+ is not finite"),
    "no box": (
        {"scale": np.array([1.0, 0.0, 1.0])},
        r"center and scale of images/S9_Walking\.54138969_000001\.jpg are no",
    ),
    "a negative box": (
        {"scale": -np.ones(FRAMES)},
        r"center and scale of images/S9_Walking\.54138969_000000\.jpg are no",
    ),
    "a huge box": ({"scale": np.full(FRAMES, 1e6)}, r"are no box in an image"),
    "a box far away": ({"center": np.full((FRAMES, 2), 1e300)}, r"are no box in an image"),
    "no frame": ({name: column[:0] for name, column in COLUMNS.items()}, r"holds no frame"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_column_that_is_wrong_is_named(tmp_path, wrong):
    columns, message = WRONG[wrong]
    np.savez(tmp_path / "a.npz", **{**COLUMNS, **columns})
    with pytest.raises(UserError, match=rf"a\.npz.*{message}"):
        h36m.open_stream(tmp_path, tmp_path / "a.npz", "convert it again")
    assert "a.npz" in refused_without_memory(h36m.open_source, tmp_path, tmp_path / "a.npz", "convert it again")


def test_genders_other_than_two_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", **{**COLUMNS, "gender": np.array(["m", "x", "f"])})
    with pytest.raises(UserError, match=r"a\.npz: gender holds f, m, x where m or f is needed"):
        pw3d.open_folder(tmp_path, tmp_path, "-")


def test_byte_strings_are_the_same_stream(tmp_path):
    np.savez(tmp_path / "text.npz", **COLUMNS)
    in_bytes = {name: COLUMNS[name].astype("S") for name in ("imgname", "gender")}
    np.savez(tmp_path / "bytes.npz", **{**COLUMNS, **in_bytes})
    text, read = (pw3d.join_sequences(tmp_path, [tmp_path / f"{kind}.npz"], "-") for kind in ("text", "bytes"))
    for name in ("imgname", "gender", "betas"):
        assert (text.columns[name] == read.columns[name]).all()


def test_long_numbers_in_names_are_no_obstacle(tmp_path):
    names = np.array([f"S9_{'9' * 5000}{frame}.jpg" for frame in range(FRAMES)])
    np.savez(tmp_path / "a.npz", **{**COLUMNS, "imgname": names})
    assert h36m.open_stream(tmp_path, tmp_path / "a.npz", "-")[0].step == 1


def test_names_that_lack_are_no_column(tmp_path):
    np.savez(tmp_path / "a.npz", **COLUMNS, missing=np.array([b"S11_a", b"S11_b"]))
    columns, missing = read_columns(tmp_path / "a.npz", ("imgname", "S"), "-")
    assert columns.keys() == {"imgname", "S"} and missing == ["S11_a", "S11_b"]


# what belongs to the body


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("v_template", lambda array: array[0, 0], "v_template is no array of numbers"),
        ("v_template", lambda array: array.astype(str), "v_template is no array of numbers"),
        ("weights", lambda array: array * np.nan, "weights is not finite"),
        ("posedirs", lambda array: array[:, :, :-1], r"posedirs has shape \(96, 3, 206\) where \(96, 3, 207\)"),
        ("shapedirs", lambda array: array[..., 0], r"shapedirs has shape \(96, 3\) where \(96, 3, 10\)"),
        ("kintree_table", lambda array: array + 30, "kintree_table is no tree"),
        ("f", lambda array: array + 90, "f holds what is no vertex"),
        ("vertex_ids", lambda array: array - 1, "vertex_ids holds what is no vertex"),
        ("vertex_ids", lambda array: array[:20], r"vertex_ids has shape \(20,\) where \(21,\)"),
    ],
)
@pytest.mark.parametrize("ending", ["npz", "pkl"])
def test_a_body_whose_arrays_are_wrong_is_named(tmp_path, name, change, message, ending):
    model = toys.smpl_model()
    model[name] = change(model[name])
    file = tmp_path / f"SMPL_NEUTRAL.{ending}"
    if ending == "npz":
        np.savez(file, **model)
    else:
        file.write_bytes(pickle.dumps(model, 2))
    with pytest.raises(UserError, match=rf"SMPL_NEUTRAL\.{ending} is no SMPL model: {message}"):
        read_model(file)


def test_mean_parameters_and_prior_that_are_wrong_are_named(tmp_path):
    np.savez(tmp_path / "mean.npz", pose=np.zeros(144), shape=np.zeros(11), cam=np.zeros(3))
    with pytest.raises(UserError, match=r"mean\.npz: shape is not 10 finite numbers"):
        load_mean_params(tmp_path / "mean.npz")
    mixture = {"means": np.zeros((8, 69)), "covars": np.tile(np.eye(69), (8, 1, 1)), "weights": np.full(8, 1 / 8)}
    for name, array in (
        ("means", np.zeros((8, 68))),
        ("covars", -mixture["covars"]),
        ("covars", mixture["covars"] * np.nan),
        ("weights", np.zeros(8)),
        ("weights", "abc"),
        ("means", mixture["means"] + np.inf),
    ):
        (tmp_path / "gmm.pkl").write_bytes(pickle.dumps({**mixture, name: array}))
        with pytest.raises(UserError, match=r"gmm\.pkl is no mixture over 69 angles"):
            PosePrior(tmp_path / "gmm.pkl")
