"""Read and write Caffe2's checkpoints, which are pickles of numpy arrays.

A pickle is a program that can call any function. The reader replaces each allowed name by a class
or function of this file that only records its arguments. The arrays are created afterwards, from
checked arguments.
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


class _Refused(pickle.UnpicklingError):
    """The pickle uses something that an array does not need."""


class _PickledDtype:
    """Arguments of numpy.dtype in a pickle."""

    def __init__(self, code: str, align: object = None, copy: object = None) -> None:
        self.code = code
        self.byte_order: Literal["=", "<", ">", "|"] = "="
        del align, copy  # used by records, which are refused

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]  # numpy checks it

    def dtype(self) -> np.dtype:
        """Return the number type; raise Refused for anything but numbers."""
        dtype = np.dtype(str(self.code))
        if dtype.kind not in "fiub":
            raise _Refused(f"an array of numpy type {dtype}")
        return dtype.newbyteorder(self.byte_order)


class _PickledArray:
    """Arguments of numpy.ndarray in a pickle."""

    def __init__(self, *ignored: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """Return the array in the machine's byte order; raise Refused if its size is wrong."""
        _, shape, dtype, is_fortran, data = self.state
        if not isinstance(dtype, _PickledDtype):
            raise _Refused("an array without a number type")
        flat = np.frombuffer(raw(data), dtype.dtype())
        if flat.size != prod(shape):
            raise _Refused(f"an array of shape {shape} with {flat.size} numbers")
        array = flat.reshape(shape, order="F" if is_fortran else "C")
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


class _PickledScalar:
    """Arguments of a single number of numpy in a pickle."""

    def __init__(self, dtype: object, data: object) -> None:
        self.dtype, self.data = dtype, data

    def array(self) -> np.ndarray:
        """Return an array without axes."""
        if not isinstance(self.dtype, _PickledDtype):
            raise _Refused("a number without a number type")
        return np.frombuffer(raw(self.data), self.dtype.dtype())[0]


def raw(data: object) -> bytes:
    """Return the bytes of an array. Python 2 wrote them as str, which is read as latin1."""
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise _Refused(f"an array whose data is a {type(data).__name__}")
    return bytes(data)


def latin1(text: object, encoding: object) -> bytes:
    """Decode bytes in the form in which Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused(f"the codec {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Return the data of an empty array in the form in which Python 3 writes it for Python 2."""
    return b""


class _Callee:
    """A function that a pickle can call, and not change."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self, *args: object) -> object:
        return self.function(*args)

    def __setstate__(self, state: object) -> None:
        raise _Refused("a change to a function")


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _PickledArray:
    """Return an array in the form of the newest pickles."""
    array = _PickledArray()
    array.state = (0, shape, dtype, order == "F", data)
    return array


ALLOWED: Mapping[str, Callable[..., object]] = {
    "numpy.core.multiarray._reconstruct": _PickledArray,
    "numpy._core.multiarray._reconstruct": _PickledArray,
    "numpy.core.multiarray.scalar": _PickledScalar,
    "numpy._core.multiarray.scalar": _PickledScalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": _PickledArray,
    "numpy.dtype": _PickledDtype,
    "_codecs.encode": latin1,
    "__builtin__.bytes": _no_bytes,
    "collections.OrderedDict": OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Accepts numpy arrays, numpy numbers and plain containers only."""

    def find_class(self, module: str, name: str) -> _Callee:
        asked = f"{module}.{name}"
        if asked not in ALLOWED:
            raise _Refused(asked)
        return _Callee(ALLOWED[asked])


DAMAGE = (  # exceptions of a pickle that is incomplete, damaged or malicious
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


def read_caffe2(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return the blobs of a Caffe2 checkpoint, {"blobs": {name: array}} or {name: array}, by name.

    Args:
        data: the content of the file
        path: the file's name in errors

    Raises:
        UserError: the file is not such a pickle, or uses anything but arrays.
    """
    try:
        saved = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        blobs = saved["blobs"] if isinstance(saved, dict) and "blobs" in saved else saved
        if not isinstance(blobs, dict):
            raise UserError(f"{path}: holds a {type(blobs).__name__}, not blobs by name")
        return {str(name): _array_of(blob) for name, blob in blobs.items()}
    except _Refused as error:
        raise UserError(
            f"{path}: refused, the pickle asks for {error}; only numpy arrays and plain "
            "containers are allowed"
        ) from error
    except DAMAGE as error:
        raise UserError(f"{path}: not a whole Caffe2 pickle ({_first_line(error)})") from error


def _array_of(blob: object) -> np.ndarray:
    """Return the array of recorded arguments, or of a plain number."""
    if isinstance(blob, _PickledArray | _PickledScalar):
        return blob.array()
    if isinstance(blob, int | float):
        return np.asarray(blob)
    raise _Refused(f"a blob that is a {type(blob).__name__}")


def write_caffe2(blobs: Mapping[str, np.ndarray], file: io.BufferedIOBase) -> None:
    """Write {"blobs": ...} as a pickle that Python 2 and numpy 1 can read."""
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


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
