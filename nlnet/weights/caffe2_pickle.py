"""Read and write Caffe2's checkpoints, which are pickles of numpy arrays."""

import io
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nlnet.errors import UserError
from nlnet.weights.safe_pickle import (
    ARRAYS,
    DAMAGE,
    Callee,
    PickledArray,
    PickledScalar,
    Refused,
    first_line,
)


class _ArrayUnpickler(pickle.Unpickler):
    """Accepts numpy arrays, numpy numbers and plain containers only."""

    def find_class(self, module: str, name: str) -> Callee:
        asked = f"{module}.{name}"
        if asked not in ARRAYS:
            raise Refused(asked)
        return Callee(ARRAYS[asked])


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
    except Refused as error:
        raise UserError(
            f"{path}: refused, the pickle asks for {error}; only numpy arrays and plain "
            "containers are allowed"
        ) from error
    except DAMAGE as error:
        raise UserError(f"{path}: not a whole Caffe2 pickle ({first_line(error)})") from error


def _array_of(blob: object) -> np.ndarray:
    """Return the array of recorded arguments, or of a plain number."""
    if isinstance(blob, PickledArray | PickledScalar):
        return blob.array()
    if isinstance(blob, int | float):
        return np.asarray(blob)
    raise Refused(f"a blob that is a {type(blob).__name__}")


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
