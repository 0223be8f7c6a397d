"""Pickles of other versions are read; hostile ones run nothing and cannot ask for more memory than they are large."""

import argparse
import pickle
import re
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from utils.errors import UserError
from utils.restricted_pickle import load_pickle, numbers

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def of_numpy_2(pickled: bytes) -> bytes:
    """The same pickle as NumPy 2 writes it, whose modules are called numpy._core instead of numpy.core."""
    by_length = re.compile(rb"\x8c(.)(numpy\.core\.\w+)", re.DOTALL)
    longer = by_length.sub(lambda found: b"\x8c" + bytes([found[1][0] + 1]) + found[2].replace(b".", b"._", 1), pickled)
    longer = longer.replace(b"cnumpy.core.", b"cnumpy._core.")
    if longer[2:3] == pickle.FRAME:
        longer = longer[:3] + (len(longer) - 11).to_bytes(8, "little") + longer[11:]
    return longer


def write(folder: Path, pickled: bytes) -> Path:
    file = folder / "a.pkl"
    file.write_bytes(pickled)
    return file


CONTENT = {
    "rows": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i4"),
    "text": np.array(["abc", "d"]),
    "objects": np.array(["a", None], object),
    "none": np.zeros((0, 3)),
    "one": np.array(3.0),
    "number": np.float64(2.5),
    "flag": np.bool_(True),
    "bytes": b"x\xff",
    "bytearray": bytearray(b"ab"),
    "nothing": b"",
    "set": {1, 2},
    "complex": 2j,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("version", [1, 2])
def test_arrays_and_numbers_of_both_numpys_are_read_in_every_protocol(tmp_path, protocol, version):
    pickled = pickle.dumps(CONTENT, protocol)
    if version == 2:
        pickled = of_numpy_2(pickled)
        assert b"numpy.core" not in pickled and b"numpy._core" in pickled
    read = load_pickle(write(tmp_path, pickled), tuple(CONTENT), "-")
    for name, value in CONTENT.items():
        if isinstance(value, np.ndarray):
            assert (read[name].shape, read[name].dtype) == (value.shape, value.dtype)
            assert (read[name] == value).all()
        else:
            assert read[name] == value


def test_the_order_of_axes_that_newer_numpys_write_is_read(tmp_path):
    array = np.arange(24.0).reshape(2, 3, 4)
    dtype, content = np.dtype("f8"), array.tobytes()

    class Newer:
        def __reduce__(self):
            return np.core.numeric._frombuffer, (content, dtype, (2, 3, 4), "K", (1, 0, 2))

    read = load_pickle(write(tmp_path, pickle.dumps({"a": Newer()}, 5)), ("a",), "-")["a"]
    assert (read == array.transpose(1, 0, 2)).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", ["csc", "csr", "coo"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_sparse_matrices_and_arrays_are_read(tmp_path, protocol, layout, kind):
    dense = np.array([[0.0, 1.0, 0.0], [2.0, 0.0, 3.0]])
    sparse = getattr(scipy.sparse, f"{layout}_{kind}")(dense)
    read = load_pickle(write(tmp_path, pickle.dumps({"a": sparse}, protocol)), ("a",), "-")["a"]
    assert isinstance(read, scipy.sparse.spmatrix)
    np.testing.assert_array_equal(read.toarray(), dense)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_of_settings_become_dictionaries(tmp_path, protocol):
    content = {"a": OrderedDict(b=np.ones(2)), "args": argparse.Namespace(lr=1e-4, shape=(np.zeros(3),))}
    read = load_pickle(write(tmp_path, pickle.dumps(content, protocol)), ("a",), "-")
    assert (read["a"]["b"] == 1).all()
    assert read["args"]["lr"] == 1e-4 and (read["args"]["shape"][0] == 0).all()


# {'name': 'bar', 'a': array([1., 2.]), 'n': int64(3)} as Python 2 writes it, by protocol: text and bytes are the same
PYTHON_2 = {
    0: b"(dp0\nS'a'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
    b"(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f8'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
    b"S'\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?\\x00\\x00\\x00\\x00\\x00\\x00\\x00@'\np15\ntp16\nbsS'name'\np17\nS'bar'\n"
    b"p18\nsS'n'\np19\ncnumpy.core.multiarray\nscalar\np20\n(g9\n(S'i8'\np21\nI0\nI1\ntp22\nRp23\n(I3\nS'<'\np24\nNNNI-1"
    b"\nI-1\nI0\ntp25\nbS'\\x03\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\np26\ntp27\nRp28\ns.",
    2: b"\x80\x02}q\x00(U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01"
    b"bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02f8q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\rNNNJ"
    b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x10\x00\x00\x00\x00\x00\x00\xf0?\x00\x00\x00\x00\x00\x00\x00@q"
    b"\x0ftq\x10bU\x04nameq\x11U\x03barq\x12U\x01nq\x13cnumpy.core.multiarray\nscalar\nq\x14h\tU\x02i8q\x15K\x00K\x01"
    b"\x87q\x16Rq\x17(K\x03U\x01<q\x18NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x19bU\x08\x03\x00\x00\x00\x00\x00\x00"
    b"\x00q\x1a\x86q\x1bRq\x1cu.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_pickles_of_python_2_are_read(tmp_path, protocol):
    read = load_pickle(write(tmp_path, PYTHON_2[protocol]), ("name", "a", "n"), "-")
    assert read["name"] == "bar" and read["a"].tolist() == [1.0, 2.0] and read["n"] == 3


def test_an_object_that_occurs_twice_is_the_same_object(tmp_path):
    array, items = np.ones(2), []
    items.append(items)
    read = load_pickle(write(tmp_path, pickle.dumps({"a": [array, array], "b": items})), ("a",), "-")
    assert read["a"][0] is read["a"][1]
    assert read["b"][0] is read["b"]


# hostile ones


class Hostile:
    """Calls a function when it is read carelessly."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def nested(hostile: Hostile) -> dict[str, object]:
    """The call as what another call, an allowed one, is given."""
    return {"poses": Hostile(set, [hostile])}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("wrap", [lambda hostile: {"poses": hostile}, lambda hostile: {hostile: 1}, nested])
def test_a_hostile_pickle_is_an_error_and_runs_nothing(tmp_path, protocol, wrap):
    pickled = pickle.dumps(wrap(Hostile(open, str(tmp_path / "marker"), "w")), protocol)
    with pytest.raises(UserError, match=r"a\.pkl cannot be read safely \(it asks for .*open, which is not allowed\)"):
        load_pickle(write(tmp_path, pickled), ("poses",), "get another one")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_array_of_hostile_objects_is_an_error_and_runs_nothing(tmp_path, protocol):
    objects = np.array([Hostile(open, str(tmp_path / "marker"), "w")], object)
    with pytest.raises(UserError, match=r"it asks for .*open, which is not allowed"):
        load_pickle(write(tmp_path, pickle.dumps({"poses": objects}, protocol)), ("poses",), "-")
    assert not (tmp_path / "marker").exists()


FORBIDDEN = (
    *(
        "os.system",
        "posix.system",
        "nt.system",
        "builtins.eval",
        "__builtin__.eval",
        "builtins.exec",
        "builtins.getattr",
    ),
    *("subprocess.Popen", "numpy.load", "numpy.testing.measure", "numpy.core.multiarray.fromfile", "numpy.memmap"),
    *(
        "runpy.run_path",
        "importlib.import_module",
        "pickle.loads",
        "torch.load",
        "builtins.list",
        "operator.attrgetter",
    ),
)


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize("opcode", ["GLOBAL", "STACK_GLOBAL", "INST", "OBJ"])
def test_a_pickle_cannot_reach_other_functions(tmp_path, name, opcode):
    module, function = (part.encode() for part in name.rsplit(".", 1))
    pickled = {
        "GLOBAL": b"\x80\x02c" + module + b"\n" + function + b"\nX\x01\x00\x00\x001\x85R.",
        "STACK_GLOBAL": b"\x80\x04V" + module + b"\nV" + function + b"\n\x93X\x01\x00\x00\x001\x85R.",
        "INST": b"(X\x01\x00\x00\x001i" + module + b"\n" + function + b"\n.",
        "OBJ": b"(c" + module + b"\n" + function + b"\nX\x01\x00\x00\x001o.",
    }[opcode]
    with pytest.raises(UserError, match=rf"it asks for {name}, which is not allowed"):
        load_pickle(write(tmp_path, pickled), (), "get another one")


def array_state(code: bytes, state: bytes, shape: bytes, content: bytes) -> bytes:
    """A pickled array whose dtype has a code and state, and that has a shape and content."""
    dtype = b"cnumpy\ndtype\n(X" + len(code).to_bytes(4, "little") + code + b"I00\nI01\ntR" + state
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
    return b"\x80\x03" + start + b"(I1\n" + shape + dtype + b"I00\n" + content + b"tb."


PLAIN = b"(I3\nX\x01\x00\x00\x00<NNNI-1\nI-1\nI0\ntb"
SIXTEEN = b"C\x10" + bytes(16)
LIES = {
    "more numbers": array_state(b"f8", PLAIN, b"(I1000000000000\nt", SIXTEEN),
    "less numbers": array_state(b"f8", PLAIN, b"(I1\nt", SIXTEEN),
    "a negative shape": array_state(b"f8", PLAIN, b"(I-1\nt", SIXTEEN),
    "large numbers": array_state(b"U999999999", PLAIN, b"(I2\nt", SIXTEEN),
    # a field of objects that the flags hide: numpy would follow the bytes as pointers
    "hidden objects": array_state(
        b"V8", b"(I3\nX\x01\x00\x00\x00|N(X\x01\x00\x00\x00at}X\x01\x00\x00\x00aNsI8\nI1\nI0\ntb", b"(I2\nt", SIXTEEN
    ),
    "fields": array_state(b"f8", b"(I3\nX\x01\x00\x00\x00<N(X\x01\x00\x00\x00at}I8\nI1\nI0\ntb", b"(I2\nt", SIXTEEN),
    "bytes of a number": b"\x80\x03cbuiltins\nbytes\nI2000000000\n\x85R.",
    "a bytearray of a number": b"\x80\x03cbuiltins\nbytearray\nI2000000000\n\x85R.",
    "a long bytearray": b"\x80\x05\x96" + (10**10).to_bytes(8, "little") + b"abc.",
    "a long text": b"\x80\x04\x8d" + (10**10).to_bytes(8, "little") + b"abc.",
    "a long frame": b"\x80\x04\x95" + (10**10).to_bytes(8, "little") + b"N.",
    "a large memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a class with another state": b"\x80\x03ccollections\nOrderedDict\n}X\x08\x00\x00\x00__init__K\x01sb.",
    "an array that is called": b"\x80\x03cnumpy\nndarray\n(I1000000000\nC\x02f8tR.",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_small_pickle_does_not_ask_for_much_memory(tmp_path, lie):
    file = write(tmp_path, LIES[lie])
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.pkl (cannot be read safely|lacks a|holds a)"):
        load_pickle(file, ("a",), "get another one")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize("name", ["indices", "indptr"])
def test_a_sparse_matrix_with_places_outside_of_it_is_an_error(tmp_path, name):
    sparse = scipy.sparse.csc_matrix(np.eye(3))
    setattr(sparse, name, np.array([0, 1, 1000, 1000][: len(getattr(sparse, name))], np.int32))
    with pytest.raises(UserError, match=r"a\.pkl cannot be read safely"):
        load_pickle(write(tmp_path, pickle.dumps({"a": sparse})), ("a",), "-")


def test_lists_that_hold_one_another_do_not_become_large_arrays(tmp_path):
    value: list = [0.0] * 10
    for _ in range(30):
        value = [value] * 10
    read = load_pickle(write(tmp_path, pickle.dumps({"a": value})), ("a",), "-")["a"]
    with pytest.raises(ValueError, match=r"has shape \(10, 10\) where \(10, 3\) is needed"):
        numbers(read, (10, 3))
    with pytest.raises((ValueError, TypeError)):
        numbers(read, (10, None))


def test_numbers_are_arrays_or_nested_lists_of_a_shape():
    for value in (np.ones((2, 3), np.float32), [[1, 1, 1], [1, 1, 1]], [np.ones(3), [1, 1, 1]]):
        assert (numbers(value, (None, 3)) == np.ones((2, 3))).all()
    for value in (np.ones((2, 4)), [[1, 2], [1, 2]], [[1, 2, 3], [1, 2]], "abc", None):
        with pytest.raises(ValueError, match="where"):
            numbers(value, (2, 3))


def test_what_is_refused_is_named_on_one_line_without_codes_of_a_terminal(tmp_path):
    pickled = b"\x80\x04X\x07\x00\x00\x00o\x1b[1ms\nX\x06\x00\x00\x00system\x93X\x01\x00\x00\x001\x85R."
    with pytest.raises(UserError) as error:
        load_pickle(write(tmp_path, pickled), (), "get another one")
    assert str(error.value).isprintable()
    assert r"it asks for o\x1b[1ms .system" in str(error.value)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cnumpy\nndarray\nX\x01\x00\x00\x00aK\x01s.",
        b"\x80\x02cnumpy\nndarray\n(X\x01\x00\x00\x00aK\x01u.",
        b"\x80\x02}K\x01a.",
        b"\x80\x02}(K\x01e.",
        b"\x80\x04](K\x01\x90.",
    ],
)
def test_only_containers_are_filled(tmp_path, pickled):
    with pytest.raises(UserError, match=r"it fills a \w+ like a (dict|list|set)"):
        load_pickle(write(tmp_path, pickled), (), "-")


def test_a_truncated_pickle_is_an_error(tmp_path):
    whole = pickle.dumps({"poses": np.zeros(100)})
    for length in range(len(whole)):
        with pytest.raises(UserError, match=r"a\.pkl cannot be read safely"):
            load_pickle(write(tmp_path, whole[:length]), ("poses",), "get another one")
