"""Read pickles without running code: the parts that the readers of weight files share.

A pickle is a program that can call any function. A reader replaces each name that it knows by a
class or function of this file that only records its arguments. Arrays and tensors are created
afterwards, from checked arguments. What a reader does with other names is its own decision.
"""

import pickle
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Literal

import numpy as np


class Refused(pickle.UnpicklingError):
    """The pickle uses something that an array does not need."""


class PickledDtype:
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
            raise Refused(f"an array of numpy type {dtype}")
        return dtype.newbyteorder(self.byte_order)


class PickledArray:
    """Arguments of numpy.ndarray in a pickle."""

    def __init__(self, *ignored: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """Return the array in the machine's byte order; raise Refused if its size is wrong."""
        _, shape, dtype, is_fortran, data = self.state
        if not isinstance(dtype, PickledDtype):
            raise Refused("an array without a number type")
        flat = np.frombuffer(_raw(data), dtype.dtype())
        if flat.size != prod(shape):
            raise Refused(f"an array of shape {shape} with {flat.size} numbers")
        array = flat.reshape(shape, order="F" if is_fortran else "C")
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


class PickledScalar:
    """Arguments of a single number of numpy in a pickle."""

    def __init__(self, dtype: object, data: object) -> None:
        self.dtype, self.data = dtype, data

    def array(self) -> np.ndarray:
        """Return an array without axes."""
        if not isinstance(self.dtype, PickledDtype):
            raise Refused("a number without a number type")
        return np.frombuffer(_raw(self.data), self.dtype.dtype())[0]


def _raw(data: object) -> bytes:
    """Return the bytes of an array. Python 2 wrote them as str, which is read as latin1."""
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise Refused(f"an array whose data is a {type(data).__name__}")
    return bytes(data)


def _latin1(text: object, encoding: object) -> bytes:
    """Decode bytes in the form in which Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"the codec {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Return the data of an empty array in the form in which Python 3 writes it for Python 2."""
    return b""


class Container(dict[Any, Any]):
    """A dict of a subclass: it keeps its items, and ignores every other state."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # a key of a dict may be such an object

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, *state: object) -> None:
        """Ignore the state."""


class Callee:
    """A function that a pickle can call, and not change."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self, *args: object) -> object:
        return self.function(*args)

    def __setstate__(self, state: object) -> None:
        raise Refused("a change to a function")


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> PickledArray:
    """Return an array in the form of the newest pickles."""
    array = PickledArray()
    array.state = (0, shape, dtype, order == "F", data)
    return array


ARRAYS: Mapping[str, Callable[..., object]] = {
    "numpy.core.multiarray._reconstruct": PickledArray,
    "numpy._core.multiarray._reconstruct": PickledArray,
    "numpy.core.multiarray.scalar": PickledScalar,
    "numpy._core.multiarray.scalar": PickledScalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": PickledArray,
    "numpy.dtype": PickledDtype,
    "_codecs.encode": _latin1,
    "__builtin__.bytes": _no_bytes,
    "collections.OrderedDict": Container,
}


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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
