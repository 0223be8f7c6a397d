"""Reading the weights of a network out of a checkpoint of torch.save, of any trainer, without running its code.

torch.load reads it with weights_only. Before that the file is gone through with stand-ins: a class that is not allowed
is named, and tensors that are announced larger than the file are refused before memory is reserved for them.
"""

import io
import logging
import pickle
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utils.errors import UserError, reason_for
from utils.files import check_archive, existing
from utils.restricted_pickle import ALLOWED, RestrictedUnpickler, StandIn, plain_value

log = logging.getLogger("boa")

_ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C  # with which torch.save begins files that are no zip archives, as up to torch 1.5
_DTYPES = {  # of what is stored under the name with Storage at its end
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
    **{"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
}
# where trainers keep the weights, the first that is there; else the file is the weights themselves
_STATES = ("model", "state_dict", "model_state_dict")
# nn.DataParallel's, torch.compile's, and the name that most trainers give to their network
_PREFIXES = ("module.", "_orig_mod.", "model.")
# of pickle, which torch.save writes unless told otherwise, and all that torch.load reads with weights_only
_PROTOCOL = 2


def read_weights(file: Path, remedy: str) -> dict[str, Tensor]:
    """Read name -> weight on the CPU, of the network alone and without prefixes as `module.`.

    Taken from `model`, `state_dict` or `model_state_dict` of the file, or from the file itself where it has none of
    these. numpy arrays become tensors.

    Raises UserError when the file is missing or damaged, asks for a class that is not allowed (none of its code is
    run), announces more than it holds, or holds no weights or some that are not finite.
    """
    file = existing(file, remedy)
    try:
        weights = _without_prefix(_weights_of(load_checkpoint(file)), file)
        for name, weight in weights.items():
            if weight.is_floating_point() and not torch.isfinite(weight).all():
                raise ValueError(f"{name} is not finite")
    except Exception as error:  # torch and pickle let through whatever a damaged file causes
        raise UserError(f"{file} is no checkpoint that can be read safely ({reason_for(error)}); {remedy}") from error
    return weights


def load_checkpoint(file: Path) -> Any:
    """The content of a checkpoint, stand-ins for all but tensors in it."""
    with file.open("rb") as stream:
        is_archive = stream.read(len(_ZIP)) == _ZIP  # what torch.load decides by
    if is_archive:
        inspector, content = _inspect_archive(file)
        source = file
    else:
        source = io.BytesIO(file.read_bytes())
        inspector, content = _inspect_legacy(source.getvalue())
    if inspector.proto > _PROTOCOL:
        return content
    stand_ins = [(stand_in, ".".join(name)) for name, stand_in in (ALLOWED | _TRAINERS).items()]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")  # torch's, about formats of its own past
        try:
            return torch.load(source, map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError
        ) as error:  # whose message is advice to read the file unsafely, and then the reason
            reason = str(error).rpartition("WeightsUnpickler error: ")[2]
            raise ValueError(reason.partition("\n")[0]) from error


def _weights_of(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} where weights by name are needed")
    state = next((content[key] for key in _STATES if isinstance(content.get(key), dict)), content)
    weights = {}
    for name, value in plain_value(dict(state)).items():
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise ValueError(f"{name} is no dense tensor")
            weights[str(name)] = value
        elif hasattr(value, "dtype") and value.dtype.kind in "fiu":
            weights[str(name)] = torch.as_tensor(value)
    if not weights:
        found = ", ".join(map(str, list(content)[:10])) or "nothing"
        raise ValueError(f"it holds no weights, neither in {', '.join(_STATES)} nor beside them, but {found}")
    return weights


def _without_prefix(weights: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        inner = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
        if inner:
            others = [name for name in weights if not name.startswith(prefix)]
            if others:
                log.info("%s: %d entries beside %s* are left out, as %s", file, len(others), prefix, others[0])
            return _without_prefix(inner, file)
    return weights


class _DictLike(dict):
    """Stands for a dictionary with more to it, whose own attributes are not needed."""

    def __new__(cls, *_: object) -> OrderedDict:
        return OrderedDict()  # torch.load fills dictionaries of this very class only


class _Ignored(StandIn):
    """Stands for what is of no interest beside the weights."""

    def __init__(self, *_: object) -> None: ...


# classes in which trainers keep their settings
_TRAINERS: dict[tuple[str, str], Any] = {
    ("pytorch_lightning.utilities.parsing", "AttributeDict"): _DictLike,
    ("lightning_fabric.utilities.data", "AttributeDict"): _DictLike,
    ("lightning.fabric.utilities.data", "AttributeDict"): _DictLike,
    ("yacs.config", "CfgNode"): _DictLike,
    ("easydict", "EasyDict"): _DictLike,
    ("pathlib", "PosixPath"): _Ignored,
    ("pathlib", "WindowsPath"): _Ignored,
}


class _Storage(NamedTuple):
    """Numbers of tensors: how many there are, and themselves where torch.load will not read them."""

    count: int
    numbers: Tensor | None = None


class _Inspector(RestrictedUnpickler):
    """Goes through a checkpoint; UnpicklingError for what it may not hold.

    Tensors are left out, except in a protocol of pickle that torch.load does not read.

    Args:
        file: the pickle
        available: key of a storage -> how many bytes the file has for it
        read: key of a storage -> these bytes
    """

    def __init__(
        self, file: io.BytesIO, available: Callable[[str], int], read: Callable[[str], bytes] | None = None
    ) -> None:
        super().__init__(file)
        self.available, self.read_storage = available, read

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.removesuffix("Storage") in _DTYPES:
            return _DTYPES[name.removesuffix("Storage")]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return name
        known = _TORCH | _TRAINERS
        return known[(module, name)] if (module, name) in known else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage (`storage`, dtype, key, device, count); in old files (key, offset, count) of a part follows."""
        tag, dtype, key, _, count, *part = pid
        if tag != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("it holds a whole network, not only weights; save its state_dict() instead")
        if not 0 <= count * dtype.itemsize <= self.available(key):
            raise pickle.UnpicklingError(f"a tensor of {count} numbers is announced, more than the file holds")
        if part and part[0] is not None:
            _, offset, size = part[0]
            if not 0 <= offset <= offset + size <= count:
                raise pickle.UnpicklingError(f"numbers {offset} to {offset + size} of {count} are announced")
            count = size
        if self.proto <= _PROTOCOL:
            return _Storage(count)
        if self.read_storage is None:
            raise pickle.UnpicklingError(f"it was saved with pickle protocol {self.proto}; save it again with 2")
        content = bytearray(self.read_storage(key)[: count * dtype.itemsize])
        return _Storage(count, torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype))


def _tensor(storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> Tensor | None:
    """A tensor, after a check that it lies inside its storage."""
    if not isinstance(storage, _Storage) or len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise pickle.UnpicklingError("it holds a tensor without numbers")
    end = offset + 1 + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if 0 not in size and end > storage.count:
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} is announced, more than the file holds")
    return None if storage.numbers is None else storage.numbers.as_strided(size, stride, offset)


def _parameter(data: Tensor | None, *_: object) -> Tensor | None:
    return data


# what torch.save puts around tensors -> what is made of it
_TORCH: dict[tuple[str, str], Any] = {
    **{("torch._utils", f"_rebuild_tensor{version}"): _tensor for version in ("", "_v2")},
    **{("torch._utils", f"_rebuild_parameter{end}"): _parameter for end in ("", "_with_state")},
    ("torch._tensor", "_rebuild_from_type_v2"): lambda rebuild, kind, arguments, state: rebuild(*arguments),
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch", "Tensor"): _Ignored,
    ("torch", "Size"): tuple,
    ("torch", "device"): _Ignored,
    ("collections", "Counter"): Counter,
}


def _inspect_archive(file: Path) -> tuple[_Inspector, Any]:
    """Go through a zip archive of torch.save -> what it was gone through with, and what it made of the file.

    Raises ValueError, or what zipfile and pickle raise, where anything is wrong.
    """
    with zipfile.ZipFile(file) as archive:
        check_archive(archive)
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        # torch.load must not find another member under a name than is looked at here
        if len({name.lower() for name in sizes}) < len(archive.infolist()) or archive.comment:
            raise ValueError("two members of its archive have the same name, or it has a comment")
        folder = next(iter(sizes)).split("/")[0]
        if f"{folder}/constants.pkl" in sizes:
            raise ValueError("it is a compiled network of TorchScript; save the state_dict() of the network instead")
        if f"{folder}/byteorder" in sizes and archive.read(f"{folder}/byteorder") != b"little":
            raise ValueError("its numbers are big-endian, which is not read")
        inspector = _Inspector(
            io.BytesIO(archive.read(f"{folder}/data.pkl")),
            available=lambda key: sizes[f"{folder}/data/{key}"],
            read=lambda key: archive.read(f"{folder}/data/{key}"),
        )
        return inspector, inspector.load()


def _inspect_legacy(content: bytes) -> tuple[_Inspector, Any]:
    """The same for the bytes of a file that is no zip archive: five pickles, then the numbers."""
    stream = io.BytesIO(content)
    pickles = [_Inspector(stream, lambda _: len(content)) for _ in range(5)]
    if content[:1] != b"\x80" or pickles[0].load() != _MAGIC:
        raise ValueError("it was not written by torch.save")
    *_, loaded, _ = [following.load() for following in pickles[1:]]
    return pickles[3], loaded
