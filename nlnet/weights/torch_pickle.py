"""Read the tensors of files of torch.save that also hold objects of other libraries.

`torch.load(weights_only=True)` refuses a file as soon as it holds one argparse.Namespace, numpy
number, OmegaConf node or object of a training library. This reader keeps the dicts, tensors and
plain values by name, and leaves everything else unread: each unknown class or function is replaced
by an empty dict that ignores its arguments and its state. No code is run.
"""

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from nlnet.files import DamagedFile
from nlnet.weights.safe_pickle import (
    ARRAYS,
    DAMAGE,
    Callee,
    Container,
    PickledArray,
    PickledScalar,
    Refused,
    first_line,
)

ZIP = b"PK\x03\x04"  # first bytes of a file since PyTorch 1.6
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes before: a pickled number
DTYPES = {  # the storages that weights have, as pickles name them
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class TensorFile(NamedTuple):
    """What the file holds, and what was left out."""

    saved: object  # nested dicts of tensors and plain values, if it is a dict
    left_out: list[str]  # names of classes and functions, sorted


@dataclass(frozen=True)
class _Storage:
    """A reference to numbers that are stored outside of the pickle."""

    key: str
    dtype: torch.dtype
    first: int  # where it begins, in numbers
    numel: int

    def __setstate__(self, state: object) -> None:
        raise Refused("a change to a storage")


class _PickledTensor:
    """Arguments of a tensor in a pickle."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, state: object) -> None:
        raise Refused("a change to a tensor")


class _Foreign(Container):
    """An object of an unknown class: its arguments and its state are ignored."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def __call__(self, *args: object, **kwargs: object) -> object:
        return _Foreign()

    def append(self, item: object) -> None:
        """Ignore an item of a list."""

    def extend(self, items: object) -> None:
        """Ignore items of a list."""

    def add(self, item: object) -> None:
        """Ignore an item of a set."""


def _attribute(*args: object) -> type[_Foreign]:
    """Replace an attribute of an object; pickles name nested classes in this way."""
    return _Foreign


def _tensor(storage: object, offset: int, size: tuple, stride: tuple, *ignored: object) -> object:
    """Record a tensor; whether it needs a gradient, and its hooks, are ignored."""
    if not isinstance(storage, _Storage):  # of numbers that weights do not have
        return _Foreign()
    return _PickledTensor(storage, offset, size, stride)


def _first(value: object, *ignored: object) -> object:
    """Record a parameter: its tensor."""
    return value


def _typed(function: object, kind: object, args: tuple, state: object) -> object:
    """Record a tensor with attributes or of a subclass: the plain tensor."""
    del kind, state
    if not isinstance(function, Callee):
        return _Foreign()
    return function(*args)


TENSORS: Mapping[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _typed,
}
PLAIN: Mapping[str, Callable[..., object]] = {  # not worth a remark
    "collections.defaultdict": _Foreign,
    "torch.Size": _Foreign,
}
KNOWN = {**ARRAYS, **TENSORS, **PLAIN, "__builtin__.getattr": _attribute}


class _TensorUnpickler(pickle.Unpickler):
    """Records tensors and arrays, and replaces all other objects."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.left_out: set[str] = set()
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if asked in KNOWN and KNOWN[asked] is not _Foreign:
            return Callee(KNOWN[asked])
        if asked not in KNOWN:
            self.left_out.add("".join(c if c.isprintable() else "?" for c in asked))
        return _Foreign

    def persistent_load(self, reference: Any) -> object:
        """Record a storage; another external object, a class in old files, is left out."""
        match reference:
            case ("storage", torch.dtype() as dtype, str(key), _, int(numel), *view):
                own = _Storage(key, dtype, 0, numel)
                self.storages.setdefault(key, own)
                match view:
                    case [(_, int(first), int(length))]:
                        return _Storage(key, dtype, first, length)
                return own
        return _Foreign


def read_tensor_file(data: bytes, path: Path) -> TensorFile:
    """Read the content of the file at `path`; the tensors are on the CPU.

    Raises:
        DamagedFile: it is not a complete file of torch.save.
    """
    read = _read_zip if data.startswith(ZIP) else _read_legacy
    try:
        return read(data)
    except (*DAMAGE, RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DamagedFile(
            f"{path}: not a safe or whole PyTorch file ({first_line(error)}); remove it, or use an "
            "intact copy"
        ) from error


def _read_zip(data: bytes) -> TensorFile:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = next(
            name.removesuffix("data.pkl")
            for name in [*archive.namelist(), "data.pkl"]
            if name.endswith("data.pkl")
        )
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise Refused("another byte order")
        unpickler = _TensorUnpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
        saved = unpickler.load()
        storages = {
            key: _numbers(archive.read(f"{root}data/{key}"), storage)
            for key, storage in unpickler.storages.items()
        }
    return TensorFile(_Reader(storages).plain(saved), sorted(unpickler.left_out))


def _read_legacy(data: bytes) -> TensorFile:
    """Read pickles one after the other: three of facts, the object, the order of its storages."""
    file = io.BytesIO(data)
    for _ in range(3):
        _TensorUnpickler(file).load()
    unpickler = _TensorUnpickler(file)
    saved = unpickler.load()
    storages = {}
    for key in _TensorUnpickler(file).load():
        storage = unpickler.storages[key]
        numel = int.from_bytes(file.read(8), "little")
        if numel != storage.numel:
            raise Refused(f"a storage of {storage.numel} numbers that has {numel}")
        storages[key] = _numbers(file.read(numel * storage.dtype.itemsize), storage)
    return TensorFile(_Reader(storages).plain(saved), sorted(unpickler.left_out))


def _numbers(content: bytes, storage: _Storage) -> Tensor:
    """Return the numbers of a storage, without axes but one."""
    if len(content) != storage.numel * storage.dtype.itemsize:
        raise Refused(f"a storage of {storage.numel} numbers in {len(content)} bytes")
    if not content:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(content), dtype=storage.dtype)


class _Reader:
    """Converts what an unpickler recorded to tensors and plain values."""

    def __init__(self, storages: Mapping[str, Tensor]) -> None:
        self.storages = storages
        self.done: dict[int, dict[str, object]] = {}  # dicts can contain each other

    def plain(self, value: object) -> object:
        """Convert a value; None for everything that is left out."""
        match value:
            case _Foreign():  # its items are those of a dict
                return self._dict(value) or None
            case dict():
                return self._dict(value)
            case _PickledTensor():
                return self._tensor(value)
            case PickledArray():
                try:
                    return torch.from_numpy(value.array())
                except (Refused, TypeError):  # objects, or numbers that torch does not have
                    return None
            case PickledScalar():
                try:
                    return value.array().item()
                except Refused:
                    return None
            case bool() | int() | float() | str():
                return value
        return None

    def _dict(self, value: dict[Any, Any]) -> dict[str, object]:
        if id(value) not in self.done:
            found = self.done[id(value)] = {}
            for key, item in dict.items(value):
                if isinstance(key, str) and (kept := self.plain(item)) is not None:
                    found[key] = kept
        return self.done[id(value)]

    def _tensor(self, value: _PickledTensor) -> Tensor:
        storage = value.storage
        numbers = self.storages[storage.key]
        if numbers.dtype != storage.dtype:
            raise Refused("a storage with two number types")
        return numbers.as_strided(value.size, value.stride, storage.first + value.offset)
