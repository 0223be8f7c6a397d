"""Checkpoints of other versions and trainers are read; hostile ones run nothing and cannot ask for much memory."""

import argparse
import io
import pickle
import sys
import tracemalloc
import types
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from torch import nn

from models.hmr import HMR, load_hmr
from utils.checkpoint import read_weights
from utils.errors import UserError

WEIGHTS = {"conv1.weight": torch.arange(6.0).view(2, 3), "bn1.bias": torch.ones(2), "bn1.steps": torch.tensor(7)}
FORMATS = {"archive": True, "legacy": False}  # of torch.save, and that of torch 1.5 and earlier


def rewrite(file: Path, change: Callable[[bytes], bytes], ending: str = "data.pkl") -> None:
    """Change the member of a zip archive whose name ends so."""
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name.endswith(ending) else content)


def write(folder: Path, content: object, kind: str = "archive", protocol: int = 2) -> Path:
    file = folder / "model.pt"
    torch.save(content, file, _use_new_zipfile_serialization=FORMATS[kind], pickle_protocol=protocol)
    return file


def assert_read(file: Path) -> None:
    read = read_weights(file, "-")
    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[name], weight) for name, weight in WEIGHTS.items())


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: weight for name, weight in WEIGHTS.items()}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "model.module.", "_orig_mod."])
def test_weights_are_found_wherever_trainers_put_them(tmp_path, kind, key, prefix):
    state = OrderedDict(prefixed(prefix))
    assert_read(write(tmp_path, {key: state, "epoch": 3, "optimizer": {"state": {}}} if key else state, kind))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_trainers_keep_beside_the_weights_is_no_obstacle(tmp_path, kind, monkeypatch):
    parsing = types.ModuleType("pytorch_lightning.utilities.parsing")

    class AttributeDict(dict):
        pass

    AttributeDict.__module__, AttributeDict.__qualname__ = parsing.__name__, "AttributeDict"
    parsing.AttributeDict = AttributeDict
    for name in ("pytorch_lightning", "pytorch_lightning.utilities", parsing.__name__):
        monkeypatch.setitem(sys.modules, name, parsing)
    settings = AttributeDict(lr=1e-4)
    settings.seen = True
    content = {
        "model": nn.ParameterDict({name.replace(".", "_"): nn.Parameter(torch.ones(2)) for name in "ab"}).state_dict(),
        "parameter": nn.Parameter(torch.ones(2)),
        "state_dict": prefixed("module."),
        "best_performance": np.float64(51.3),
        "best_epoch": np.int64(3),
        "improved": np.bool_(True),
        "history": np.array([70.1, 51.3]),
        "columns": np.asfortranarray(np.ones((2, 2), np.float32)),
        "names": np.array(["mpjpe", "pve"]),
        "args": argparse.Namespace(lr=1e-4, name="h36m", log_dir=Path("logs")),
        "hyper_parameters": settings,
        "milestones": Counter([10, 20]),
        "rng": torch.get_rng_state(),
        "shape": torch.Size([3, 224, 224]),
        "device": torch.device("cuda", 0),
        "dtype": torch.float16,
        "permutation": [2, 0, 1],
    }
    content["model"], content["state_dict"] = content["state_dict"], content["model"]
    assert_read(write(tmp_path, content, kind))


@pytest.mark.parametrize("kind", FORMATS)
def test_numbers_and_arrays_of_numpy_2_are_no_obstacle(tmp_path, kind):
    file = write(tmp_path, {"model": WEIGHTS, "best": np.float64(51.3), "history": np.array([70.1, 51.3])}, kind)
    if kind == "legacy":
        file.write_bytes(file.read_bytes().replace(b"numpy.core.", b"numpy._core."))
    else:
        rewrite(file, lambda content: content.replace(b"numpy.core.", b"numpy._core."))
    assert_read(file)


def test_weights_that_are_numpy_arrays_become_tensors(tmp_path):
    assert_read(write(tmp_path, {"model": {name: weight.numpy() for name, weight in WEIGHTS.items()}}))


def test_entries_beside_the_network_are_left_out_with_a_word(tmp_path, caplog):
    caplog.set_level("INFO")
    assert_read(write(tmp_path, {"state_dict": {**prefixed("model."), "smpl.faces": torch.ones(3)}}))
    assert "1 entries beside model.* are left out, as smpl.faces" in caplog.text


def test_a_network_is_loaded_out_of_a_checkpoint_of_lightning(world, tmp_path):
    saved = HMR(toys.mean_params(), 18).state_dict()
    file = write(tmp_path, {"state_dict": {f"model.{name}": value for name, value in saved.items()}, "epoch": 3})
    loaded = load_hmr(world.stream.assets.mean_params, file).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in saved.items())


REFUSED = {
    "no weights": ({"epoch": 3, "args": {}}, "it holds no weights, neither in model, .* but epoch, args"),
    "a list": ([torch.ones(2)], "it holds a list where weights by name are needed"),
    "not finite": ({"model": {"fc1.weight": torch.tensor([1.0, torch.nan])}}, "fc1.weight is not finite"),
    "sparse": ({"model": {"a": torch.eye(2).to_sparse()}}, "it asks for torch._utils._rebuild_sparse_tensor"),
    "without numbers": (
        {"model": {"a": torch.ones(2, device="meta")}},
        "it asks for torch._utils._rebuild_meta_tensor",
    ),
    "a network": (nn.Linear(2, 2), "it asks for torch.nn.modules.linear.Linear, which is not allowed"),
    "a generator": (
        {"model": WEIGHTS, "rng": np.random.default_rng(0)},
        "it asks for numpy.random._pickle.__generator_ctor",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused_is_named_in_one_line(tmp_path, reason):
    content, message = REFUSED[reason]
    with pytest.raises(UserError, match=rf"model\.pt is no checkpoint that can be read safely \({message}") as error:
        read_weights(write(tmp_path, content), "get another one")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_is_read(tmp_path, protocol):
    content = {"model": WEIGHTS, "best": np.float64(51.3), "history": np.ones(3), "args": argparse.Namespace(lr=1e-4)}
    assert_read(write(tmp_path, content, protocol=protocol))
    whole = torch.arange(24.0).view(4, 6)
    state = {
        "part": whole[1:3, ::2],
        "turned": whole.T,
        "expanded": torch.ones(1).expand(3, 2),
        "half": torch.ones(3, dtype=torch.float16),
        "parameter": nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
    }
    read = read_weights(write(tmp_path, {"model": state}, protocol=protocol), "-")
    assert all(torch.equal(read[name], weight) and read[name].dtype == weight.dtype for name, weight in state.items())


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_legacy_file_of_a_later_protocol_is_refused_with_the_remedy(tmp_path, protocol):
    with pytest.raises(UserError, match=rf"saved with pickle protocol {protocol}; save it again with 2"):
        read_weights(write(tmp_path, {"model": WEIGHTS}, "legacy", protocol), "-")


def test_a_compiled_network_is_refused_with_the_remedy(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "model.pt"))
    with pytest.raises(UserError, match=r"a compiled network of TorchScript; save the state_dict\(\)"):
        read_weights(tmp_path / "model.pt", "-")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text\n", pickle.dumps({"model": 1}), b"\x80\x02]q\x00."])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pt is no checkpoint that can be read safely"):
        read_weights(tmp_path / "model.pt", "-")


# hostile ones


class Hostile:
    """Calls a function when it is read carelessly."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("place", ["weights", "beside", "nested", "in an array"])
def test_a_hostile_checkpoint_is_an_error_and_runs_nothing(tmp_path, kind, place):
    hostile = Hostile(open, str(tmp_path / "marker"), "w")
    content = {
        "weights": {"model": {"a": hostile}},
        "beside": {"model": WEIGHTS, "epoch": hostile},
        "nested": {"model": WEIGHTS, "epoch": Hostile(set, [hostile])},
        "in an array": {"model": WEIGHTS, "history": np.array([hostile], object)},
    }[place]
    with pytest.raises(UserError, match=r"it asks for (builtins|_?io)\.open, which is not allowed"):
        read_weights(write(tmp_path, content, kind), "-")
    assert not (tmp_path / "marker").exists()


def refused_without_memory(file: Path) -> str:
    """Read a file that must be refused, of which no more may be reserved than a few megabytes -> the message."""
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        read_weights(file, "-")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
    return str(error.value)


BIG = b"J" + (2 * 10**9).to_bytes(4, "little")  # as an integer of a pickle
ONE_TENSOR = {"model": {"a": torch.arange(8.0)}}


def test_a_tensor_larger_than_the_file_is_refused_in_later_protocols_too(tmp_path):
    file = write(tmp_path, ONE_TENSOR, protocol=5)
    rewrite(file, lambda content: content.replace(b"K\x08\x85", BIG + b"\x85").replace(content[2:11], b""))
    assert "is announced, more than the file holds" in refused_without_memory(file)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", ["the storage", "the shape", "both"])
def test_a_tensor_larger_than_the_file_is_refused_before_memory_is_reserved(tmp_path, kind, what):
    file = write(tmp_path, ONE_TENSOR, kind)
    if kind == "legacy":
        storage, shape = (b"K\x08Nt", b"K\x08\x85")
    else:
        storage, shape = (b"K\x08t", b"K\x08\x85")

    def change(content: bytes) -> bytes:
        assert content.count(storage) == content.count(shape) == 1
        if what != "the shape":
            content = content.replace(storage, BIG + storage[2:])
        return content if what == "the storage" else content.replace(shape, BIG + shape[2:])

    if kind == "legacy":
        file.write_bytes(change(file.read_bytes()))
    else:
        rewrite(file, change)
    assert "is announced, more than the file holds" in refused_without_memory(file)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", [b"bytearray", b"bytes"])
def test_bytes_of_an_announced_length_are_refused(tmp_path, kind, name):
    file = write(tmp_path, {"model": {"a": torch.ones(2)}, "b": bytearray(b"abc")}, kind)
    pickled = b"\x80\x02cbuiltins\n" + name + b"\n" + BIG + b"\x85R."
    if kind == "legacy":
        content = file.read_bytes()
        stream = io.BytesIO(content)
        for _ in range(3):
            pickle.load(stream)
        file.write_bytes(content[: stream.tell()] + pickled)
    else:
        rewrite(file, lambda _: pickled)
    assert "it makes bytes of a int" in refused_without_memory(file)


def test_an_archive_whose_members_are_announced_larger_than_it_is_refused(tmp_path):
    file = write(tmp_path, ONE_TENSOR)
    content = file.read_bytes()
    # sizes in the directory at the end: of the numbers, compressed and not
    place = content.rindex(b"model/data/0") - 46
    huge = (10**9).to_bytes(4, "little")
    file.write_bytes(content[: place + 20] + huge + huge + content[place + 28 :])
    assert "is announced with 1000000000 bytes, more than the file holds" in refused_without_memory(file)


def test_an_archive_with_two_members_of_a_name_is_refused(tmp_path):
    file = write(tmp_path, ONE_TENSOR)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("model/DATA.pkl", pickle.dumps({"model": 1}, 2))
    assert "two members of its archive have the same name" in refused_without_memory(file)


def test_a_legacy_file_with_an_archive_at_its_end_is_read_as_what_it_begins_with(tmp_path):
    file = write(tmp_path, {"model": {"a": Hostile(open, str(tmp_path / "marker"), "w")}}, "legacy")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"model": {}}, 2))
    assert "open, which is not allowed" in refused_without_memory(file)
