"""Caffe2's checkpoints, pickles of numpy arrays, read without running anything that they hold.

A pickle is a program. The reader here lends it a few names, each of a class or function of this
file that only records what it is given: arrays are made afterwards, from checked facts.
"""

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nlnet.errors import UserError


class Refused(pickle.UnpicklingError):
    """The pickle asked for something that an array does not need."""


class PickledDtype:
    """What a pickle says of a number type; the calls are those of numpy's own pickles."""

    def __init__(self, code: str, align: object = None, copy: object = None) -> None:
        self.code = code
        self.byte_order: Literal["=", "<", ">", "|"] = "="
        del align, copy  # of records, which are refused

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]  # numpy checks it

    def dtype(self) -> np.dtype:
        dtype = np.dtype(str(self.code))
        if dtype.kind not in "fiub":
            raise Refused(f"an array of numpy type {dtype}")
        return dtype.newbyteorder(self.byte_order)


class PickledArray:
    """What a pickle says of an array."""

    def __init__(self, *ignored: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The array, of the machine's byte order; raises Refused where the facts disagree."""
        _, shape, dtype, is_fortran, data = self.state
        if not isinstance(dtype, PickledDtype):
            raise Refused("an array without a number type")
        flat = np.frombuffer(raw(data), dtype.dtype())
        if flat.size != prod(shape):
            raise Refused(f"an array of shape {shape} with {flat.size} numbers")
        array = flat.reshape(shape, order="F" if is_fortran else "C")
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


class PickledScalar:
    """What a pickle says of a single number."""

    def __init__(self, dtype: object, data: object) -> None:
        self.dtype, self.data = dtype, data

    def array(self) -> np.ndarray:
        """An array without axes."""
        if not isinstance(self.dtype, PickledDtype):
            raise Refused("a number without a number type")
        return np.frombuffer(raw(self.data), self.dtype.dtype())[0]


def raw(data: object) -> bytes:
    """The bytes of an array: Python 2 has them as a str, here read as latin1."""
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise Refused(f"an array whose data are a {type(data).__name__}")
    return bytes(data)


def latin1(text: object, encoding: object) -> bytes:
    """How Python 3 writes bytes into pickles that Python 2 can read."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"the codec {encoding}")
    return text.encode("latin1")


def no_bytes() -> bytes:
    """How Python 3 writes the data of an empty array for Python 2."""
    return b""


class Lent:
    """A name lent to a pickle: it can be called, and nothing else be done to it."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self, *args: object) -> object:
        return self.function(*args)

    def __setstate__(self, state: object) -> None:
        raise Refused("a change to what it was lent")


def from_buffer(data: object, dtype: object, shape: object, order: object) -> PickledArray:
    """An array as the newest pickles write it."""
    array = PickledArray()
    array.state = (0, shape, dtype, order == "F", data)
    return array


LENT: Mapping[str, Callable[..., object]] = {
    "numpy.core.multiarray._reconstruct": PickledArray,
    "numpy._core.multiarray._reconstruct": PickledArray,
    "numpy.core.multiarray.scalar": PickledScalar,
    "numpy._core.multiarray.scalar": PickledScalar,
    "numpy.core.numeric._frombuffer": from_buffer,
    "numpy._core.numeric._frombuffer": from_buffer,
    "numpy.ndarray": PickledArray,
    "numpy.dtype": PickledDtype,
    "_codecs.encode": latin1,
    "__builtin__.bytes": no_bytes,
    "collections.OrderedDict": OrderedDict,
}


class ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays, numpy numbers and plain containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Lent:
        asked = f"{module}.{name}"
        if asked not in LENT:
            raise Refused(asked)
        return Lent(LENT[asked])


DAMAGE = (  # what a pickle that is cut, garbled or hostile can raise
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
    RecursionError,
)


def read_caffe2(path: Path) -> dict[str, np.ndarray]:
    """The blobs of a Caffe2 checkpoint, {"blobs": {name: array}} or flat, by name.

    Raises UserError if the file is no such pickle, or asks for anything but arrays.
    """
    try:
        saved = ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        blobs = saved["blobs"] if isinstance(saved, dict) and "blobs" in saved else saved
        if not isinstance(blobs, dict):
            raise UserError(f"{path}: holds a {type(blobs).__name__}, not blobs by name")
        return {str(name): array_of(blob) for name, blob in blobs.items()}
    except Refused as error:
        raise UserError(
            f"{path}: refused, the pickle asks for {error}; only numpy arrays and plain "
            "containers are admitted"
        ) from error
    except DAMAGE as error:
        raise UserError(f"{path}: not a whole Caffe2 pickle ({first_line(error)})") from error


def array_of(blob: object) -> np.ndarray:
    """The array that a pickle recorded; a plain number counts as one."""
    if isinstance(blob, PickledArray | PickledScalar):
        return blob.array()
    if isinstance(blob, int | float):
        return np.asarray(blob)
    raise Refused(f"a blob that is a {type(blob).__name__}")


def write_caffe2(blobs: Mapping[str, np.ndarray], file: io.BufferedIOBase) -> None:
    """Write {"blobs": ...} as a pickle that Python 2, and the numpy of its days, can read."""
    program = pickle.dumps({"blobs": dict(blobs)}, protocol=2)
    written = 0
    for operation, value, place in pickletools.genops(program):
        if (
            operation.name == "GLOBAL"
            and str(value).startswith("numpy._core.")
            and place is not None
        ):
            file.write(program[written:place] + b"cnumpy.core.")
            written = place + len(b"cnumpy._core.")
    file.write(program[written:])


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
